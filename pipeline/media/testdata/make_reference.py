"""Makes samples.json and reference.wav: float samples, and the file that soundfile makes of them.

    pip install numpy==2.* soundfile==0.13.*
    python make_reference.py

The reference implementation writes its speech with soundfile, so our writer must make the same bytes.
"""

import json
import pathlib

import numpy as np
import soundfile

folder = pathlib.Path(__file__).parent
edges = [0, 1, -1, 2, -2, 1.0000001, -1.0000001, 0.99999, -0.99999, 0.5, -0.5, 1e-9, -1e-9, 1e-10, -1e-10]
steps = [k / 32768 for k in (1, -1, 1.5, -1.5, 0.4, -0.4, 0.6, -0.6, 2.5, 3.5, 32766.5, 32767, 32767.4, -32767.9)]
noise = np.random.default_rng(0).uniform(-1.2, 1.2, 200).tolist()
samples = np.array(edges + steps + noise, dtype=np.float32)
(folder / "samples.json").write_text(json.dumps([float(x) for x in samples], separators=(",", ":")) + "\n")
soundfile.write(folder / "reference.wav", samples, 24000)
