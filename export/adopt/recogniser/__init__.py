"""Turns public streaming recognisers, folders with graphs and tokens, into one file of the task ``transcribe``.

``files`` finds the parts in the folder, ``kinds`` describes what each family's host does, ``frontend`` and
``transducer`` implement that in the graph, ``assemble`` builds the file, ``host`` is the reference in NumPy around the
original files, and ``build`` runs all of it.
"""

from export.adopt.recogniser.build import adopt_folder

__all__ = ["adopt_folder"]
