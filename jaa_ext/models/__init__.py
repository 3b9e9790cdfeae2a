"""The models, their files, and ways to start them from other weights."""

from jaa_ext.models.config import JAANetConfig
from jaa_ext.models.graphnet import JAAGraphNet, JAAGraphNetConfig
from jaa_ext.models.import_authors import import_weights
from jaa_ext.models.jaanet import JAANet, JAAOutput
from jaa_ext.models.serialization import build_model, load_model, save_model
from jaa_ext.models.transfer import Transfer, transfer_weights

__all__ = [
    "JAAGraphNet",
    "JAAGraphNetConfig",
    "JAANet",
    "JAANetConfig",
    "JAAOutput",
    "Transfer",
    "build_model",
    "import_weights",
    "load_model",
    "save_model",
    "transfer_weights",
]
