"""Turns public streaming recognisers, folders with graphs and tokens, into one file of the task ``transcribe``.

``files`` finds the graphs in the folder, ``kinds`` describes each family's host, ``frontend`` and ``transducer``
implement it in the graph, ``assemble`` builds the file, ``host`` is the NumPy reference around the original files, and
``build`` runs all steps.
"""

from export.adopt.recogniser.build import adopt_folder

__all__ = ["adopt_folder"]
