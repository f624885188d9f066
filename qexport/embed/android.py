"""qexport embed --target android: a Gradle module with .qpk files as assets, the runtime and a Java API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qexport.backends.packed.reader import PackedModel
from qexport.embed.describe import describe_model, reference_sample
from qexport.embed.source import environment
from qexport.embed.sources import whole_runtime
from qexport.errors import OptionError
from qexport.session import InferenceSession

_JAVA = "src/main/java/qexport/android"
_CPP = "src/main/cpp"
_TESTS = "src/androidTest"
_SHARED = {
    "README.md": "README.md.j2",
    "build.gradle.kts": "build.gradle.kts.j2",
    "consumer-rules.pro": "consumer-rules.pro.j2",
    "src/main/AndroidManifest.xml": "AndroidManifest.xml.j2",
    f"{_JAVA}/Network.java": "Network.java.j2",
    f"{_JAVA}/Images.java": "Images.java.j2",
    f"{_CPP}/CMakeLists.txt": "CMakeLists.txt.j2",
    f"{_CPP}/qxr_jni.c": "qxr_jni.c.j2",
    f"{_TESTS}/java/qexport/android/SelfCheckTest.java": "SelfCheckTest.java.j2",
}
_OWN_CLASSES = {"Network", "Images", "SelfCheckTest", "String", "Override"}


def android_module(models: Mapping[str, PackedModel], version: str) -> tuple[dict[str, str | bytes], dict[str, Any]]:
    """The module of some networks.

    Args:
        models: by name, from which those of the asset and of the class follow.
        version: of qexport.

    Returns:
        files by path, and values: `models`, each with what its README says, and their sums.

    Raises:
        OptionError: two names that give one class, or one that this module has already.
    """
    classes = _class_names(models)
    described = [_values(name, classes[name], model) for name, model in models.items()]
    files: dict[str, str | bytes] = {f"{_CPP}/qxr/{path}": text for path, text in whole_runtime().items()}
    for values, model in zip(described, models.values(), strict=True):
        files[f"src/main/assets/{values['name']}.qpk"] = model.sections.data.tobytes()
        given, expected = reference_sample(model)
        files[f"{_TESTS}/assets/{values['name']}.vector"] = given.tobytes() + expected.astype(">i4").tobytes()
        files[f"{_JAVA}/{values['class_name']}.java"] = _render("Model.java.j2", values | {"version": version})
    files |= {path: _render(file, {"models": described, "version": version}) for path, file in _SHARED.items()}
    return files, {
        "models": described,
        "constant_bytes": sum(v["constant_bytes"] for v in described),
        "arena": max(v["arena"] for v in described),
    }


def _render(template: str, values: dict[str, Any]) -> str:
    return environment().get_template(f"android/{template}").render(values)


def _values(name: str, class_name: str, model: PackedModel) -> dict[str, Any]:
    data = model.sections.data.tobytes()
    described = describe_model(model)
    return described | {
        "name": name,
        "class_name": class_name,
        "arena": InferenceSession(data, isa="scalar").arena_size,
        "constant_bytes": len(data),
        "class_literals": [java_string(text) for text in described["classes"]],
    }


def java_string(text: str) -> str:
    """A Java string literal in ASCII: the escapes of JSON are among those of Java."""
    return json.dumps(text)


def _class_names(names: Mapping[str, Any]) -> dict[str, str]:
    """digits_w2a2 becomes DigitsW2a2."""
    found: dict[str, str] = {}
    for name in names:
        chosen = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
        if chosen in _OWN_CLASSES or chosen in found.values():
            raise OptionError("two Java classes would have one name", where="--name", got=name, expected="another name")
        found[name] = chosen
    return found
