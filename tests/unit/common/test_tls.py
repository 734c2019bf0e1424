"""Renewed TLS files that are wrong show without a connection."""

from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common.config import ConfigError
from services.common.tls import TlsFiles, TlsRefusals


class Files(TlsFiles):
    """Files that are wrong when a test says so."""

    wrong = ""

    def read(self) -> tuple[bytes, ...]:
        return ()

    def check(self) -> None:
        if Files.wrong:
            raise ConfigError("chain.pem", [Files.wrong])


class Scene:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        files = Files(Path("chain.pem"), Path("key.pem"), None)
        self.refusals = TlsRefusals(files, self.registry)

    async def looks(self, *wrong: str) -> None:
        for one in wrong:
            Files.wrong = one
            await self.refusals.look()

    def told(self) -> tuple[float | None, float | None]:
        return tuple(  # type: ignore[return-value]
            self.registry.get_sample_value(f"pennyweight_tls_{name}")
            for name in ("refused", "refusals_total")
        )


async def test_files_that_stay_wrong_are_told_once_each_until_they_are_mended() -> None:
    scene = Scene()
    await scene.looks("", "", "torn")
    assert scene.told() == (0, 0)  # they may still be written
    await scene.looks("torn", "torn")
    assert scene.told() == (1, 1)
    await scene.looks("other", "other")
    assert scene.told() == (1, 2)
    await scene.looks("", "")
    assert scene.told() == (0, 2)


async def test_files_that_are_gone_are_told_and_plain_text_has_none(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    gone = TlsRefusals(TlsFiles(tmp_path / "chain", tmp_path / "key", None), registry)
    await gone.look()
    await gone.look()
    assert registry.get_sample_value("pennyweight_tls_refused") == 1
    plain = CollectorRegistry()
    await TlsRefusals(None, plain).run()
    assert plain.get_sample_value("pennyweight_tls_refused") == 0
