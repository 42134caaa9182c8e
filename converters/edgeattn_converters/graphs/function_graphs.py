"""The graphs of the functions that loops and conditions call."""

from typing import Any

LOOPS = ("While", "StatelessWhile")


def function_graph(operation: Any, attribute: str) -> Any:
    """The graph of a function that an operation calls."""
    return graph_of_function(operation.graph, operation.get_attr(attribute).name)


def graph_of_function(graph: Any, name: str) -> Any:
    """The graph of the function ``name`` that operations of ``graph`` can call."""
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    definition = graph._get_function(name).cached_definition
    with graph.as_default():  # where the functions are found that it calls
        return function_def_to_graph(definition, include_library_functions=True)
