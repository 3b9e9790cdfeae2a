"""The models, and how they are kept in files."""

from jaa_ext.models.files import load_model, save_model
from jaa_ext.models.jaanet import JAANet, JAANetConfig, JAAOutput

__all__ = ["JAANet", "JAANetConfig", "JAAOutput", "load_model", "save_model"]
