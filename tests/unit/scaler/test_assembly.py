"""What the scaler keeps of its work shows in its metrics."""

from prometheus_client import CollectorRegistry

from services.scaler.assembly import History
from services.scaler.fleet.scaling_file import ScalingFile
from services.scaler.load.loads import Loads
from services.scaler.metrics import Metrics


async def test_versions_that_wait_for_the_disk_show(tmp_path):
    registry = CollectorRegistry()
    file = ScalingFile(tmp_path / "scaling.yaml", {0})
    history = History(tmp_path / "history", file, Loads(), Metrics(registry))
    history.open()

    def waiting():
        return registry.get_sample_value(
            "pennyweight_scaler_history_unwritten", {"record": "versions"}
        )

    history.versions.in_force(b"a")
    history.versions.in_force(b"b")
    assert waiting() == 2
    await history.versions.flush()
    assert waiting() == 0
    history.close()
