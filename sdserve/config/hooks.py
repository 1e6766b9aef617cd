"""Server hooks: callables of the config file, with gunicorn's names and parameters.

A hook is refused at load time when it cannot be called with its parameters: at run time the same mistake would
surface at the first fork, or at the last exit. Anything that takes the right number of positional arguments is
accepted, whatever its parameters are called, defaults and *args included.
"""

from __future__ import annotations

from collections.abc import Callable

from sdserve.config.convert import show
from sdserve.config.setting import Setting


def no_hook(*args: object) -> None:
    """The default of every hook: does nothing."""


def takes(function: Callable[..., object], count: int) -> bool:
    """Whether `function` can be called with `count` positional arguments.

    Plain functions and methods are read off their code object; only others need the import of `inspect`.
    """
    bound = 1 if getattr(function, "__self__", None) is not None else 0
    inner = getattr(function, "__func__", function)
    code = getattr(inner, "__code__", None)
    if code is None or not hasattr(inner, "__kwdefaults__"):
        return _signature_takes(function, count)
    needed = code.co_argcount - len(inner.__defaults__ or ()) - bound
    if code.co_kwonlyargcount > len(inner.__kwdefaults__ or {}):
        return False
    return needed <= count and (count <= code.co_argcount - bound or bool(code.co_flags & 0x04))  # CO_VARARGS


def _signature_takes(function: Callable[..., object], count: int) -> bool:
    try:
        import inspect

        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except (ImportError, ValueError):  # the disk is gone, or a built-in function has no signature
        return True  # take the operator's word
    return True


def imported(path: str) -> object:
    """The object at a dotted path `package.module.name`. Raises ValueError with a clause for the operator."""
    module_name, _, name = path.replace(":", ".").rpartition(".")
    if not module_name:
        raise ValueError(f"{show(path)} is not a dotted path such as package.module.function")
    try:
        module = __import__(module_name, fromlist=[name])
    except ImportError as exc:
        raise ValueError(f"{show(path)} cannot be imported: {exc}") from exc
    try:
        found: object = getattr(module, name)
    except AttributeError:
        raise ValueError(f"{show(path)}: the module {module_name} has no {name}") from None
    return found


class Hook(Setting[Callable[..., object]]):
    """A setting whose value is a callable, or the dotted path of one, that takes `parameters`."""

    parameters: tuple[str, ...] = ()

    def __init__(self, parameters: str, text: str) -> None:
        super().__init__(self._callable, no_hook, text, default_doc="does nothing")
        self.__dict__["parameters"] = tuple(parameters.split())

    def _callable(self, value: object) -> Callable[..., object]:
        function = imported(value.strip()) if isinstance(value, str) else value
        if not callable(function):
            raise ValueError(f"{show(value)} cannot be called")
        if takes(function, len(self.parameters)):
            return function
        for count in (3, 2) if self.name == "post_request" else ():  # gunicorn's rule: as many as the function takes
            if takes(function, count):
                return lambda *args: function(*args[:count])
        given = value if isinstance(value, str) else getattr(function, "__qualname__", type(function).__name__)
        raise ValueError(f"the function {given} cannot be called as {self.name}({', '.join(self.parameters)})")


class Hooks:
    on_starting = Hook("server", "Called in the master before it does anything else.")
    on_reload = Hook(
        "server", "Called in the master at a reload, before workers with the new configuration are forked."
    )
    when_ready = Hook("server", "Called in the master when it is ready to fork workers.")
    pre_fork = Hook("server worker", "Called in the master before each worker is forked.")
    post_fork = Hook("server worker", "Called in the worker after it was forked.")
    post_worker_init = Hook("worker", "Called in the worker when it has loaded the application.")
    post_worker_warmup = Hook(
        "worker", "Called in the worker when it has answered its warm-up requests, as the last thing before it serves."
    )
    worker_int = Hook("worker", "Called in the worker when SIGINT or SIGQUIT ends it.")
    worker_abort = Hook("worker", "Called in the worker at SIGABRT, as a rule because of `timeout`.")
    pre_exec = Hook("server", "Called in the old master before it starts the new one of an upgrade.")
    pre_request = Hook("worker req", "Called in the worker before each request is given to the application.")
    post_request = Hook(
        "worker req environ resp",
        "Called in the worker after each request. A function of two or three parameters gets as many.",
    )
    child_exit = Hook("server worker", "Called in the master after a worker has exited.")
    worker_exit = Hook("server worker", "Called in the worker before it exits.")
    nworkers_changed = Hook(
        "server new_value old_value",
        "Called in the master when the number of workers was changed. `old_value` is None the first time.",
    )
    on_exit = Hook("server", "Called in the master before it exits.")


HOOK_PARAMETERS = {name: hook.parameters for name, hook in vars(Hooks).items() if isinstance(hook, Hook)}
