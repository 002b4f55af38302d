"""Training tests run on one thread: the models are tiny, and threads would only wait."""

import torch

torch.set_num_threads(1)
