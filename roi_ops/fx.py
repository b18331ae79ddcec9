"""``torch.fx`` records a call of ours as one node, wherever the function was imported to."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch.fx import Proxy

Function = TypeVar("Function", bound=Callable[..., Any])


def node(function: Function) -> Function:
    """A function that becomes one node of the graph if an argument, or an element of a list among them, is a proxy.

    ``torch.fx.wrap`` does so only for names of the module that calls it, so that users who import the function would
    have to call it themselves.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            for element in value if isinstance(value, list | tuple) else (value,):
                if isinstance(element, Proxy):
                    return element.tracer.create_proxy("call_function", call, args, kwargs)
        return function(*args, **kwargs)

    return cast(Function, call)
