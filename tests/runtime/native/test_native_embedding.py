"""libedgewise in a C program: built alone, found by CMake, run on an engine file that Python wrote."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import which

import numpy as np
import pytest

from edgewise.targets.cpu.native.plan import DType, Isa, Op, Plan, Tensor, dim

_ROOT = Path(__file__).resolve().parents[3]
_MAX_LIBRARY_BYTES = 1_000_000
_LIBRARY = ("edgewise", "edgewise_static", "edgewise_image", "edgewise_bench")
_SYSTEM = {"linux-vdso.so.1", "libc.so.6", "libm.so.6", "libpthread.so.0"}

pytestmark = pytest.mark.slow


def run(*command: str | Path, status: int = 0) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def cmake(source: Path, build: Path, *options: str, targets: Sequence[str] = ("all",)) -> str:
    tool = which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not tool or not which(os.environ.get("CXX", "c++")):
        if "CI" in os.environ:
            pytest.fail("CI has cmake and a C++ compiler")
        pytest.skip("needs cmake and a C++ compiler")
    run(tool, "-S", source, "-B", build, *options)
    run(tool, "--build", build, "--parallel", "2", "--target", *targets)
    return tool


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where libedgewise is installed: linked from the objects that scripts/setup left behind, which are compiled where it left none."""
    installed = tmp_path_factory.mktemp("prefix")
    build = _ROOT / ".cache" / "native"
    build.parent.mkdir(exist_ok=True)
    with build.with_suffix(".lock").open("w") as lock:  # test processes share the folder
        fcntl.flock(lock, fcntl.LOCK_EX)
        tool = cmake(_ROOT / "runtime" / "native", build, targets=_LIBRARY)
        run(tool, "--install", build, "--component", "library", "--prefix", installed, "--strip")
    return installed


def scores_plan() -> Plan:
    """Scores of five classes: the input and a ramp."""
    x, y = (Tensor(name, DType.F32, (dim("N"), dim(5))) for name in "xy")
    ramp = Tensor("ramp", DType.F32, (dim(1), dim(5)), data=np.arange(5, dtype=np.float32))
    return Plan(Isa.GENERIC, [x], [y], [Op("binary", "ramp", [x, ramp], [y], {"function": "add"})])


@pytest.mark.parametrize("linkage", ["OFF", "ON"], ids=["shared", "static"])
def test_the_example_runs(prefix: Path, engine_file: Callable[[Plan], Path], tmp_path: Path, linkage: str) -> None:
    cmake(
        _ROOT / "examples" / "embed_c", tmp_path / "build",
        f"-DCMAKE_PREFIX_PATH={prefix}", f"-DCLASSIFY_STATIC={linkage}", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror -pedantic",
    )  # fmt: skip
    program, engine = tmp_path / "build" / "classify", engine_file(scores_plan())
    said = run(program, engine)
    assert said.startswith("class 4, score 4\n")
    assert re.search(
        r"^\d+\.\d{3} ms, the fastest of 20 runs; \d+ bytes of weights, \d+ of activations$", said, re.MULTILINE
    )
    raw = tmp_path / "x.raw"
    np.array([0, 9, 0, 0, 0], np.float32).tofile(raw)
    assert run(program, engine, raw).startswith("class 1, score 10\n")
    raw.write_bytes(b"123")
    assert "does not hold the 20 bytes of input x" in run(program, engine, raw, status=1)
    engine.write_bytes(engine.read_bytes()[:-64])
    assert "cut short" in run(program, engine, status=1)
    assert "No such file" in run(program, tmp_path / "none", status=1)


def flags(prefix: Path) -> list[str]:
    """What the installed .pc file says, its variables written out; pkg-config itself may be absent."""
    (file,) = prefix.rglob("edgewise.pc")
    lines = file.read_text(encoding="utf-8").replace("${pcfiledir}", str(file.parent)).splitlines()
    values = dict(line.split("=", 1) for line in lines if re.match(r"^\w+=", line))
    said = " ".join(line.partition(":")[2] for line in lines if line.startswith(("Cflags:", "Libs:")))
    while "${" in said:
        said = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], said)
    return said.split()


def test_the_cpp_example_runs_with_what_the_pc_file_says(
    prefix: Path, engine_file: Callable[[Plan], Path], tmp_path: Path
) -> None:
    source, program = _ROOT / "examples" / "embed_cpp" / "main.cpp", tmp_path / "embed"
    said = flags(prefix)
    library = next(word.removeprefix("-L") for word in said if word.startswith("-L"))
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    run(os.environ.get("CXX", "c++"), *strict, source, "-o", program, *said, f"-Wl,-rpath,{library}")
    x, y = (Tensor(name, DType.F32, (dim(1), dim(5))) for name in "xy")
    ramp = Tensor("ramp", DType.F32, (dim(1), dim(5)), data=np.arange(5, dtype=np.float32))
    engine = engine_file(Plan(Isa.GENERIC, [x], [y], [Op("binary", "ramp", [x, ramp], [y], {"function": "add"})]))
    assert run(program, engine) == "class 4, score 4\n"
    assert "embed: cannot open" in run(program, tmp_path / "none", status=1)
    with_bytes = Plan(
        Isa.GENERIC, [x8 := Tensor("x", DType.S64, (dim(1), dim(5)))], [y], [Op("cast", "c", [x8], [y])]
    )  # the example writes floats
    assert "x has another element type" in run(program, engine_file(with_bytes), status=1)


def test_the_library_is_small_and_needs_the_system_alone(prefix: Path) -> None:
    (library,) = (file for file in prefix.rglob("libedgewise.so*") if not file.is_symlink())
    assert library.stat().st_size <= _MAX_LIBRARY_BYTES
    needed = {line.split()[0] for line in run("ldd", library).splitlines()}
    assert {name for name in needed if not Path(name).name.startswith("ld-linux")} <= _SYSTEM
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    header = (prefix / "include" / "edgewise.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^EW_API .*?\b(ew_\w+)\(", header, re.MULTILINE))
    assert declared
    assert exported == declared


_KOTLIN = """
import dev.edgewise.Engine
import java.nio.ByteBuffer
import java.nio.ByteOrder

fun floats(count: Int): ByteBuffer = ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder())

fun refused(work: () -> Unit) =
    try { work(); println("nothing") } catch (error: RuntimeException) { println("${error.javaClass.simpleName}: ${error.message}") }

fun main(args: Array<String>) {
    Engine(args[0], threads = 1).use { engine ->
        println("${engine.inputNames} ${engine.outputNames}")
        engine.setInputShape(0, longArrayOf(2, 5))
        val x = floats(10)
        val y = floats(10)
        for (i in 0 until 10) x.putFloat(4 * i, 10f * i)
        engine.writeInput(0, x)
        engine.run()
        engine.readOutput(0, y)
        println("${engine.outputShape(0).toList()} ${y.getFloat(36)}")
        refused { engine.writeInput(0, floats(3)) }
        refused { engine.writeInput(0, ByteBuffer.allocate(40)) }
        refused { engine.setInputShape(0, LongArray(99)) }
        engine.close()
        refused { engine.run() }
    }
    refused { Engine("none") }
}
"""
_SAID = """\
[x] [y]
[2, 5] 94.0
EdgewiseException: x has 40 bytes, not 12
IllegalArgumentException: the buffer is not direct
IllegalArgumentException: too many dims
IllegalStateException: the engine is closed
"""


def installed(name: str) -> Path:
    """A program that CI installs; elsewhere the test skips without it."""
    found = which(name)
    if not found:
        if "CI" in os.environ:
            pytest.fail(f"CI has {name}")
        pytest.skip(f"needs {name}")
    return Path(found)


@pytest.fixture(scope="module")
def jni() -> Path:
    """The folder with a JDK's jni.h."""
    return installed("javac").resolve().parents[1] / "include"


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program over Engine.kt, with Kotlin's library in it; whatever the compiler warns of is an error."""
    folder = tmp_path_factory.mktemp("kotlin")
    (folder / "Main.kt").write_text(_KOTLIN)
    wrapper = _ROOT / "runtime/native/android/Engine.kt"
    run(
        installed("kotlinc"), "-Werror", "-jvm-target", "1.8", "-include-runtime", folder / "Main.kt", wrapper, "-d", folder / "it.jar"
    )  # fmt: skip
    return folder / "it.jar"


def check_kotlin(program: Path, library: Path, engine: Path) -> None:
    said = run(installed("java"), f"-Djava.library.path={library.parent}", "-jar", program, engine)
    assert said.startswith(_SAID)
    assert re.fullmatch(r"EdgewiseException: .*none.*No such file.*\n", said.removeprefix(_SAID))


def test_the_kotlin_wrapper_runs_in_a_java_machine(
    prefix: Path, jni: Path, kotlin: Path, engine_file: Callable[[Plan], Path], tmp_path: Path
) -> None:
    (archive,) = prefix.rglob("libedgewise.a")
    glue = tmp_path / "libedgewise_jni.so"
    run(
        "cc", "-shared", "-fPIC", "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{jni}", f"-I{jni / 'linux'}",
        f"-I{prefix / 'include'}", _ROOT / "runtime/native/android/edgewise_jni.c", archive, "-lstdc++", "-lm", "-pthread", "-o", glue,
    )  # fmt: skip
    check_kotlin(kotlin, glue, engine_file(scores_plan()))


@pytest.mark.cross
def test_the_android_project_builds_all_that_the_wrapper_needs(
    jni: Path, kotlin: Path, engine_file: Callable[[Plan], Path]
) -> None:
    """With this machine's compiler and a JDK's header in place of the NDK's."""
    build = _ROOT / ".cache" / "native-android"
    cmake(_ROOT / "runtime/native/android", build, f"-DEDGEWISE_JNI={jni}")
    check_kotlin(kotlin, build / "libedgewise_jni.so", engine_file(scores_plan()))


_RUST = """
#[path = "{wrapper}"]
mod edgewise;
use edgewise::Engine;

fn main() -> Result<(), edgewise::Error> {{
    let mut engine = Engine::open(&std::env::args().nth(1).unwrap(), 1)?;
    println!("{{}} {{}}", engine.inputs(), engine.outputs());
    engine.set_input_shape(0, &[2, 5])?;
    let (x, mut y): (Vec<f32>, _) = ((0..10).map(|i| 10.0 * i as f32).collect(), [0f32; 10]);
    engine.write_input(0, &x)?;
    engine.run()?;
    engine.read_output(0, &mut y)?;
    println!("{{:?}} {{:?}}", engine.output_shape(0)?, y[9]);
    println!("{{}}", engine.write_input(0, &x[..3]).unwrap_err());
    println!("{{}}", Engine::open("no\\0ne", 1).err().unwrap());
    let error = Engine::open("none", 1).err().unwrap();
    println!("{{}} {{}}", error.status, error);
    Ok(())
}}
"""


def test_the_rust_wrapper_runs(prefix: Path, engine_file: Callable[[Plan], Path], tmp_path: Path) -> None:
    (tmp_path / "main.rs").write_text(_RUST.format(wrapper=_ROOT / "runtime/native/rust/edgewise.rs"))
    library = next(iter(prefix.rglob("libedgewise.so"))).parent
    run(
        installed("rustc"), "--edition", "2021", "-D", "warnings", tmp_path / "main.rs", "-L", library,
        "-C", f"link-arg=-Wl,-rpath,{library}", "-o", tmp_path / "main",
    )  # fmt: skip
    said = run(tmp_path / "main", engine_file(scores_plan())).splitlines()
    assert said[:3] == ["1 1", "[2, 5] 94.0", "x has 40 bytes, not 12"]
    assert "nul byte" in said[3] and said[4].startswith("2 ") and "No such file" in said[4]


def test_the_wrappers_call_what_there_is(prefix: Path) -> None:
    """Kotlin's external functions are the glue's, and Swift calls functions of the header, in Swift's grammar."""
    native = _ROOT / "runtime" / "native"
    kotlin, glue = (native / "android" / name for name in ("Engine.kt", "edgewise_jni.c"))
    asked = set(re.findall(r"external fun (\w+)", kotlin.read_text(encoding="utf-8")))
    given = set(re.findall(r"Java_dev_edgewise_Engine_(\w+)", glue.read_text(encoding="utf-8")))
    assert asked == given and len(asked) == 9
    swift = (native / "swift/Sources/Edgewise/Engine.swift").read_text(encoding="utf-8")
    header = (prefix / "include" / "edgewise.h").read_text(encoding="utf-8")
    called = set(re.findall(r"\b(ew_\w+)\(", swift))
    assert len(called) > 8 and called <= set(re.findall(r"\b(ew_\w+)\b", header))
    from tree_sitter import Language, Parser
    from tree_sitter_swift import language

    parser = Parser(Language(language()))
    for file in (native / "swift").rglob("*.swift"):
        assert not parser.parse(file.read_bytes()).root_node.has_error, file
