"""Vectors of words as gensim 4.4.0 saves them, with the arrays in files beside the pickles, and without:

python tests/data/make_gensim.py
"""

from pathlib import Path

import numpy as np
from gensim.models import KeyedVectors
from gensim.utils import SaveLoad
from scipy import sparse


class Model(SaveLoad):
    """A model of gensim is one, whose attributes may be some, too."""


words = KeyedVectors(3, count=0)
words.add_vectors(["a", "b"], np.arange(6, dtype=np.float32).reshape(2, 3))
model = Model()
words.lifecycle_events = model.lifecycle_events = None  # which say on what machine it was saved
model.wv, model.bias, model.counts = words, np.arange(4.0), sparse.csr_matrix(np.eye(2))
model.save(str(Path(__file__).parent / "gensim" / "whole.model"))
model.save(str(Path(__file__).parent / "gensim" / "apart.model"), sep_limit=0)
