"""Public streaming recognisers, a folder of graphs and a list of tokens, become one file of the task ``transcribe``.

``files`` finds what is in the folder, ``kinds`` knows what each family's host does, ``frontend`` and ``transducer``
bring that into the graph, ``assemble`` puts it together, ``host`` is the same in NumPy around the files as they came,
and ``build`` goes the whole way.
"""

from export.adopt.recogniser.build import adopt_folder

__all__ = ["adopt_folder"]
