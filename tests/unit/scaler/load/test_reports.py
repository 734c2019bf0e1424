"""Load reports are checked before anything is taken from them."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.errors import BadRequest
from services.scaler.load.reports import checked


@pytest.mark.parametrize("started_at", [Timestamp(seconds=2**63 - 1), Timestamp(nanos=-1)])
def test_a_start_that_is_no_moment_is_refused(started_at):
    with pytest.raises(BadRequest, match="started_at"):
        checked(pb.ReportLoadRequest(router="r", started_at=started_at), "")


def test_a_start_is_taken():
    report = checked(pb.ReportLoadRequest(router="r", started_at=Timestamp(seconds=7)), "")
    assert report.run.started_at == 7_000_000_000
    assert checked(pb.ReportLoadRequest(router="r"), "").run is None
