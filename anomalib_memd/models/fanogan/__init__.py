"""f-AnoGAN: a generative adversarial network of normal images, and an encoder into it."""

from .lightning_model import FAnoGAN
from .torch_model import Critic, FAnoGANModel, Generator, gradient_penalty

__all__ = ["Critic", "FAnoGAN", "FAnoGANModel", "Generator", "gradient_penalty"]
