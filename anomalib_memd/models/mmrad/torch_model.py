"""PyTorch model of MMRAD."""

import torch
from anomalib.data import InferenceBatch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.ops import sigmoid_focal_loss

from anomalib_memd.components.negatives.drawing import Images
from anomalib_memd.components.negatives.registry import ImageSynthesis
from anomalib_memd.components.overlap import dice_loss
from anomalib_memd.modality import Branch, Modality
from anomalib_memd.models.pairs import asked_by

from .encoder import Prompted


class TaskDecoder(nn.Module):
    """Asks an embedding with a token of the modality: is the image abnormal, and where.

    The token looks at all locations in two layers. What it has become is compared with each location of the enlarged
    embedding, as in SAM's mask decoder. Both modalities share everything but the token.

    Args:
        channels: Number of channels of the embedding, a multiple of 8.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tokens = nn.ParameterDict({m.value: nn.Parameter(torch.randn(1, 1, channels)) for m in Modality})
        layer = nn.TransformerDecoderLayer(channels, 8, 2 * channels, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerDecoder(layer, 2)
        self.enlarge = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.kernel = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels // 8))
        self.judge = nn.Linear(channels, 1)

    def forward(self, embedding: torch.Tensor, modality: Modality) -> tuple[torch.Tensor, torch.Tensor]:
        """Judge embeddings.

        Args:
            embedding: Shape ``(B, C, h, w)``.
            modality: Whose token asks.

        Returns:
            Log odds of the image, ``(B,)``, and of each location, ``(B, 1, 4 h, 4 w)``.
        """
        # Not len(embedding): an exported graph would have it as a constant.
        token = self.tokens[modality.value].expand(embedding.shape[0], -1, -1)
        token = self.layers(token, embedding.flatten(2).transpose(1, 2))[:, 0]
        places = torch.einsum("bc,bchw->bhw", self.kernel(token), self.enlarge(embedding))
        return self.judge(token)[:, 0], places[:, None]


class MMRADModel(nn.Module):
    r"""A prompted encoder and a decoder that both modalities share, taught by simulated anomalies.

    .. math::
        L = \sum_m \mathrm{focal}(p_m, y) + \mathrm{dice}(p_m, y) + \mathrm{BCE}(s_m, \max y)

    with the map :math:`p_m` and the score :math:`s_m` of each modality of a pair, in which an anomaly with the mask
    :math:`y` is drawn in the same place. A pair has the mean of both.

    Args:
        modality: Modality of images that come alone.
        encoder: That of SAM, or a backbone in its place.
        mean: What images were centred by, for each channel.
        std: What they were divided by.

    Source:
        Li et al., "MMRAD", Information Fusion 2025. Hyper-parameters are open. Here: a prompt before each layer,
        anomalies as in DRAEM, a decoder of two layers.
    """

    def __init__(
        self,
        modality: Modality,
        encoder: Prompted,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.modality = modality
        self.encoder = encoder
        self.decoder = TaskDecoder(self.encoder.channels)
        self.synthesis = ImageSynthesis("perlin")
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def log_odds(self, images: torch.Tensor, modality: Modality) -> tuple[torch.Tensor, torch.Tensor]:
        """Log odds of images, ``(B,)``, and of their pixels, ``(B, 1, H, W)``, of one modality."""
        image, places = self.decoder(self.encoder(images, modality), modality)
        return image, F.interpolate(places, images.shape[-2:], mode="bilinear")

    def draw(self, images: Images) -> tuple[Images, torch.Tensor]:
        """Normal pairs, and the same with anomalies; masks ``(2 B, 1, H, W)``. Images are normalised."""
        visible = {m: (image * self.std + self.mean).clamp(0, 1).cpu() for m, image in images.items()}
        count = len(next(iter(images.values())))
        made: dict[Modality, list[torch.Tensor]] = {m: [] for m in images}
        masks = []
        for number in range(count):
            pair, donor = ({m: image[(number + shift) % count] for m, image in visible.items()} for shift in (0, 1))
            abnormal, mask = self.synthesis(pair, donor, int(torch.randint(2**31, ())))
            masks.append(mask)
            for modality, image in abnormal.items():
                made[modality].append(image)
        both = {m: torch.cat([x, (torch.stack(made[m]).to(x) - self.mean) / self.std]) for m, x in images.items()}
        drawn = torch.stack(masks)[:, None].to(self.mean.device)
        return both, torch.cat([torch.zeros_like(drawn), drawn])

    def loss(self, images: Images) -> torch.Tensor:
        """Loss of normal pairs and of anomalies that are drawn into them, see the class.

        Args:
            images: Normalised images of each modality, ``(B, 3, H, W)``.
        """
        both, masks = self.draw(images)
        abnormal = masks.flatten(1).amax(1)
        total = masks.new_zeros(())
        for modality, given in both.items():
            image, places = self.log_odds(given, modality)
            total = total + sigmoid_focal_loss(places, masks, reduction="mean") + dice_loss(places.sigmoid(), masks)
            total = total + F.binary_cross_entropy_with_logits(image, abnormal)
        return total

    def judge(self, branch: Branch, images: Images) -> InferenceBatch:
        """Judge pairs.

        Args:
            branch: One modality, or the pair, which has the mean of both.
            images: Normalised images of each modality, ``(B, 3, H, W)``.
        """
        scores, maps = zip(*(self.log_odds(images[m], m) for m in asked_by(branch)), strict=True)
        return InferenceBatch(pred_score=torch.stack(scores).mean(0), anomaly_map=torch.stack(maps).mean(0).sigmoid())

    def forward(self, images: torch.Tensor) -> InferenceBatch:
        """Judge images of :attr:`modality` that come alone."""
        return self.judge(Branch(self.modality.value), {self.modality: images})
