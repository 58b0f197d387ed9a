"""What helps for a value that no checkpoint can hold, by the name of its class or of one above it. Nothing is imported
for it."""

from __future__ import annotations

import inspect
from typing import Any

_BY_NAME = "store its name, and look it up after loading"
_LEAVE = "leave it out, and make it anew after loading"
_STATE = "store vars(value) and make it anew, or give its class state_dict() and load_state_dict()"

_OF_CLASS: dict[str, str] = {
    "builtins.type": f"{_BY_NAME}",
    "builtins.function": _BY_NAME,
    "builtins.method": _BY_NAME,
    "builtins.builtin_function_or_method": _BY_NAME,
    "builtins.module": _BY_NAME,
    "functools.partial": "store its arguments, and the name of its function",
    "builtins.generator": "store list(value)",
    "builtins.memoryview": "store bytes(value), or np.asarray(value)",
    "array.array": "store np.asarray(value)",
    "builtins.ellipsis": "store None or a string",
    "io.IOBase": "store its name, and value.tell()",
    "_io._IOBase": "store its name, and value.tell()",
    "logging.Logger": _LEAVE,
    "_thread.lock": _LEAVE,
    "_thread.RLock": _LEAVE,
    "threading.Thread": _LEAVE,
    "multiprocessing.process.BaseProcess": _LEAVE,
    "_socket.socket": _LEAVE,
    "weakref.ReferenceType": _LEAVE,
    "datetime.tzinfo": "store str(value), its name",
    "datetime.datetime": "store value.astimezone(datetime.timezone.utc); only time zones of a fixed offset are kept",
    "datetime.time": "store value.isoformat() and the name of its time zone",
    "collections.defaultdict": "its factory is none of those that come back (int, float, list, dict ...): store "
    "dict(value)",
    "builtins.slice": "store a tuple; only slices of ints are kept",
    "builtins.set": "store list(value); only items that are plain and hashable are kept in a set",
    "builtins.frozenset": "store list(value); only items that are plain and hashable are kept in a frozenset",
    "fractions.Fraction": "store a tuple of its two numbers, which have too many digits for a Fraction",
    "keras.src.backend.common.variables.Variable": "store value.numpy()",
    "keras.src.backend.common.variables.KerasVariable": "store value.numpy()",
    "numpy.random._generator.Generator": "store value.bit_generator.state",
    "numpy.random.bit_generator.BitGenerator": "store np.random.Generator(value), or value.state",
    "numpy.ma.MaskedArray": "store value.data and value.mask",
    "numpy.ma.core.MaskedArray": "store value.data and value.mask",
    "numpy.ndarray": "store np.asarray(value)",
    "numpy.dtype": "store str(value)",
    "random.Random": "store value.getstate()",
    "omegaconf.basecontainer.BaseContainer": "store OmegaConf.to_container(value, resolve=True)",
    "pandas.core.frame.DataFrame": 'store value.to_dict("list"), or its columns as arrays',
    "pandas.core.series.Series": "store value.to_numpy()",
    "torch.utils.data.dataloader.DataLoader": "leave it out; torchdata's StatefulDataLoader has a state that is stored",
    "builtins.dict": "store dict(value)",
    "builtins.list": "store list(value)",
    "builtins.tuple": "store tuple(value)",
    "builtins.str": "store str(value)",
    "builtins.bytes": "store bytes(value)",
    "builtins.bool": "store bool(value)",
    "builtins.int": "store int(value)",
    "builtins.float": "store float(value)",
    "builtins.complex": "store complex(value)",
    "collections.abc.Mapping": "store dict(value)",
    "builtins.mappingproxy": "store dict(value)",
    "collections.UserDict": "store value.data",
    "collections.UserList": "store value.data",
}

_OF_KEY = {
    "enum.Enum": "use key.name, or key.value if that is a str or an int",
    "builtins.tuple": "store a list of pairs: list(value.items())",
    "builtins.frozenset": "store a list of pairs: list(value.items())",
    "builtins.bool": "use int(key) or str(key)",
    "numpy.integer": "use int(key)",
    "builtins.int": "use int(key)",
    "builtins.str": "use str(key)",
    "builtins.float": "use str(key), or store a list of pairs",
    "builtins.bytes": "use key.hex(), or store a list of pairs",
}


def advice_for(value: Any) -> str:
    """What helps for a value that is no tensor."""
    for kind in type(value).__mro__:
        found = _OF_CLASS.get(f"{kind.__module__}.{kind.__qualname__}")
        if found is not None:
            return found
    if isinstance(value, type):
        return _BY_NAME
    if inspect.isroutine(value):
        return _BY_NAME
    if hasattr(value, "__next__"):
        return "store list(value)"
    return _STATE if hasattr(value, "__dict__") else "store the plain values or arrays that it is made of"


def advice_for_key(key: Any) -> str:
    """What helps for a key of a dict that is neither a str nor an int."""
    for kind in type(key).__mro__:
        found = _OF_KEY.get(f"{kind.__module__}.{kind.__qualname__}")
        if found is not None:
            return found
    return "use str or int keys, or store a list of pairs"


def advice_for_dtype(dtype: Any) -> str:
    """What helps for an array of a dtype that has no encoding."""
    if dtype.kind == "O":
        return "store value.tolist(), or an array of numbers"
    if dtype.kind in "SUT":
        return "store value.tolist()"
    if dtype.names:
        return "store a dict of its fields: {name: value[name] for name in value.dtype.names}"
    return "store value.astype(np.float64)" if dtype.kind == "f" else "store value.astype(np.complex128)"


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    kind = type(value)
    text = getattr(kind, "unstorable", None)
    if text is not None:
        return str(text)
    if isinstance(value, type):
        return f"the class {value.__module__}.{value.__qualname__}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__module__', None) or ''}.{value.__qualname__}".replace(" .", " ")
    return f"a {kind.__module__}.{kind.__qualname__}"
