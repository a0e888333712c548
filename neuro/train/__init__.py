"""Training: a configuration in TOML, one loop with exact resume, losses, quantisation-aware training.

`neuro.train.config.load_config` -> `neuro.train.loop.fit` -> `neuro.results.Run` ->
`neuro.train.evaluate.evaluate`.
"""

from neuro.train.config import Config, load_config, presets
from neuro.train.loop import fit

__all__ = ["Config", "fit", "load_config", "presets"]
