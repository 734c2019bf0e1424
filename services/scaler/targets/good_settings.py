"""The last good settings of each pool, kept so that a scaler that starts anew can go back to them.

One JSON file a pool below the state folder. Leaves to `policy.rollout` when settings are good.
"""

from pathlib import Path

import orjson
import structlog
from pydantic import TypeAdapter

from services.common.files import write_whole
from services.scaler.pools.pool import Pool

log = structlog.get_logger()

_ADAPTER = TypeAdapter(Pool)

CONFIG_PBTXT = "config_pbtxt"


class GoodSettings:
    """Good settings below a state folder, which belongs to one scaler at a time."""

    def __init__(self, state_folder: Path) -> None:
        self._folder = state_folder.absolute() / "good"

    def load(self, pool: str) -> Pool | None:
        """The pool's last good settings; None where none are kept, or are of another version."""
        path = self._folder / f"{pool}.json"
        try:
            found = orjson.loads(path.read_bytes())
            config_pbtxt = found.pop(CONFIG_PBTXT, "")
            return _ADAPTER.validate_json(orjson.dumps(found)).having(str(config_pbtxt))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError):  # whatever else it holds
            log.warning("unusable good settings", pool=pool, file=str(path))
            return None

    def keep(self, pool: str, settings: Pool) -> None:
        """Keeps them; where that fails, the next scaler has nothing to go back to."""
        try:
            write_whole(self._folder / f"{pool}.json", _ADAPTER.dump_json(settings, indent=1))
        except OSError as error:
            log.warning("good settings cannot be kept", pool=pool, error=str(error))
