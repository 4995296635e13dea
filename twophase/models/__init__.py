"""The zoo, written once in lane layers. A new model is a file here and a line in `MODELS`."""

from twophase.models import cnn, custom, mlp, resnet, vgg, vit
from twophase.models.network import ACTIVATIONS, INITS, Architecture, LaneNetwork, OneLane

MODELS: dict[str, Architecture] = {
    "cnn": cnn.ARCHITECTURE,
    "custom": custom.ARCHITECTURE,
    "mlp": mlp.ARCHITECTURE,
    "resnet": resnet.ARCHITECTURE,
    "vgg": vgg.ARCHITECTURE,
    "vit": vit.ARCHITECTURE,
}

__all__ = ["ACTIVATIONS", "INITS", "MODELS", "Architecture", "LaneNetwork", "OneLane"]
