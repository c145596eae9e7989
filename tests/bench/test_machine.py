from __future__ import annotations

from dataclasses import replace

from anyport.bench.blank import Blank
from anyport.bench.machine import cpu_flags, cpu_name, package_versions, this_machine


def test_a_machine_says_what_a_number_depends_on() -> None:
    machine = this_machine(("msgspec", "no-such-package"))
    assert machine.cpu == cpu_name() != ""
    assert machine.isa == tuple(cpu_flags())
    assert machine.n_cores >= 1
    assert list(machine.packages) == ["anyport", "numpy", "onnxruntime", "msgspec"]
    first, second = machine.lines()
    assert first.startswith(f"{machine.cpu} (")
    assert "per core" in first
    assert "onnxruntime 1." in second


def test_a_system_without_a_load_average_says_nothing_of_it() -> None:
    machine = replace(this_machine(), load_per_core=Blank("Windows keeps no load average"), isa=(), n_cores=4)
    assert machine.lines()[0] == f"{machine.cpu} ({machine.machine}), 4 cores"


def test_absent_packages_have_no_version() -> None:
    assert package_versions(["no-such-package"]) == {}
