"""Readings of the power controller, and their mean over time."""

from __future__ import annotations

import threading

import pytest

from edgeattn.device import power
from edgeattn.device.power import PowerSampler, total_watts

# Output of a Raspberry Pi 5: three rails, the input voltage and the voltage of the RTC battery.
PI5_READING = """   3V7_WL_SW_A current(0)=0.10000000A
    VDD_CORE_A current(7)=2.00000000A
     3V3_SYS_A current(1)=0.50000000A
   3V7_WL_SW_V volt(8)=3.70000000V
    VDD_CORE_V volt(15)=0.80000000V
     3V3_SYS_V volt(9)=3.30000000V
       EXT5V_V volt(24)=5.15000000V
        BATT_V volt(25)=0.00000000V
"""


def test_total_watts_sums_all_rails():
    # 0.1 * 3.7 + 2 * 0.8 + 0.5 * 3.3; voltages without a current are ignored.
    assert total_watts(PI5_READING) == pytest.approx(3.62)
    assert total_watts("VDD_CORE_A=1.5A\nVDD_CORE_V=0.5V\n") == pytest.approx(0.75)


@pytest.mark.parametrize(
    "reading", [None, "", "error=1 error_msg=Command not registered", "A_A current(0)=1.0A"]
)
def test_no_power_without_a_complete_rail(reading):
    assert total_watts(reading) is None


def test_sampler_averages_in_the_background(monkeypatch):
    monkeypatch.setattr(power, "INTERVAL_SECONDS", 0)
    readings, sampled = [], threading.Event()

    def read():
        # The first reading only checks for a controller; a third one begins after one is recorded.
        readings.append(None)
        if len(readings) == 3:
            sampled.set()
        return "X_A=2A\nX_V=3V\n"

    with PowerSampler(read) as sampler:
        assert sampler.supported
        assert sampled.wait(600)
    assert sampler.watts == pytest.approx(6.0)


def test_sampler_reads_an_unsupported_board_once():
    readings = []
    with PowerSampler(lambda: readings.append(None)) as sampler:
        assert not sampler.supported
    assert (sampler.watts, len(readings)) == (None, 1)
