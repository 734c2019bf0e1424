"""What a replica's metrics page says of its requests, whatever comes as one."""

import http.server
import threading

import pytest

from services.scaler.targets.triton_client import TritonClient

GOOD = b"""\
nv_inference_pending_request_count{model="m",version="1"} 2
nv_trt_llm_request_metrics{model="m",request_type="active",version="1"} 3
"""


@pytest.fixture
def page():
    """A server of pages; what it answers is set in its ``page``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.server.page)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("text", "running"),
    [(GOOD, 5), (GOOD[:40], None), (b"", None), (b"\xff\xfe", None), (GOOD[:-2] + b"NaN\n", None)],
)
async def test_a_page_that_cannot_be_read_says_nothing(page, text, running):
    page.page = text
    client = TritonClient("127.0.0.1", 1, page.server_port, "m")
    try:
        assert await client.running_requests() == running
    finally:
        await client.close()
