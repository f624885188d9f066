"""Builds generated directories for Arduino and Zephyr, with stand-ins for what those frameworks bring."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from embedded_program import GCC, run

WARNINGS = ("-Wall", "-Wextra", "-Werror")

ARDUINO_CORE = """
#include <cstdio>
#include <cstdlib>
struct {
    void begin(long) {}
    void print(const char *s) { std::fputs(s, stdout); }
    void println(unsigned long n) { std::printf("%lu\\n", n); }
} Serial;
unsigned long millis() { return 0; }
void delay(unsigned long) { std::exit(0); }
#include "examples/self_check/self_check.ino"
int main() { setup(); for (;;) loop(); }
"""
"""Prints to the console and ends after one round."""

ZEPHYR = """
cmake_minimum_required(VERSION 3.20)
project(app C)
macro(zephyr_library_named name)
    add_library(${{name}} STATIC)
    set(current ${{name}})
endmacro()
macro(zephyr_library_sources)
    target_sources(${{current}} PRIVATE ${{ARGV}})
endmacro()
macro(zephyr_library_sources_ifdef option)
    if(${{option}})
        target_sources(${{current}} PRIVATE ${{ARGN}})
    endif()
endmacro()
macro(zephyr_include_directories)
    target_include_directories(${{current}} PUBLIC ${{ARGV}})
endmacro()
{options}
add_subdirectory(module/zephyr)
add_executable(app main.c)
target_link_libraries(app {library})
"""


def run_arduino_sketch(folder: Path, *flags: str) -> str:
    """Compile every C file below src, searching only src for headers, and the sketch; returns what it prints."""
    compiler = shutil.which("g++") or pytest.skip("g++ is not installed")
    GCC.require()
    (folder / "core.cpp").write_text(ARDUINO_CORE)
    objects = []
    for i, source in enumerate(sorted((folder / "src").rglob("*.c"))):
        objects.append(folder / f"{i}.o")
        done = run(["gcc", *flags, *WARNINGS, f"-I{folder / 'src'}", "-c", source, "-o", objects[-1]])
        assert done.returncode == 0, done.stderr.decode()
    program = folder / "program"
    done = run([compiler, *WARNINGS, f"-I{folder / 'src'}", folder / "core.cpp", *objects, "-o", program])
    assert done.returncode == 0, done.stderr.decode()
    return run([program]).stdout.decode()


def check_arduino_properties(folder: Path) -> None:
    """The manifest has every field that the library manager asks for."""
    properties = dict(line.split("=", 1) for line in (folder / "library.properties").read_text().splitlines())
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures"}
    assert required <= properties.keys()


def run_zephyr_application(folder: Path, library: str, options: Sequence[str], main: str) -> int:
    """Build an application with the module in folder/module; returns its exit status."""
    cmake = shutil.which("cmake") or pytest.skip("cmake is not installed")
    GCC.require()
    (folder / "main.c").write_text(main)
    chosen = "\n".join(f"set({option} y)" for option in options)
    (folder / "CMakeLists.txt").write_text(ZEPHYR.format(options=chosen, library=library))
    build_with_cmake(cmake, folder, folder / "b")
    return run([folder / "b" / "app"]).returncode


def build_with_cmake(cmake: str, source: Path, binary: Path, *options: str) -> None:
    for command in (["-S", source, "-B", binary, *options], ["--build", binary]):
        done = run([cmake, *command], env={**os.environ, "CC": "gcc"})
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
