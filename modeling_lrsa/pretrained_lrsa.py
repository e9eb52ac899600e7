"""What all LRSA models share: how they are loaded, initialised and split over devices."""

import inspect

import torch
from torch import nn
from transformers import __version__
from transformers import initialization as init
from transformers.generation import GenerationMixin
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.versions import require_version

from .configuration_lrsa import LRSAConfig
from .fusion_lrsa import LRSACrossAttention, LRSADualCrossAttention
from .match_lrsa import LRSAMatchEmbeddings


OLDEST_TORCH = "2.11"
# Name of the decoder's cache in `generate`, in forward arguments and in outputs. transformers 5.24 renamed it, and a
# model that does not follow decodes without its cache, silently.
_NAMED = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
CACHE = next((name for name in ("cache", "past_key_values") if name in _NAMED), None)
if CACHE is None:
    raise ImportError(
        f"This code needs transformers 5.22 or later, below 6, whose `generate` passes a `cache`; found {__version__}."
    )
# Arguments of `from_pretrained` that say where a checkpoint lies.
PLACE = {"cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"}


class LRSAPreTrainedModel(PreTrainedModel):
    config: LRSAConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["LRSAFusionLayer"]
    _skip_keys_device_placement = ["cache", "past_key_values"]
    _supports_sdpa = True
    # Of keys and queries of different lengths transformers' unpads the queries by the mask of the keys.
    _supports_flash_attn = False
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: LRSAConfig, *args, **kwargs):
        require_version(f"torch>={OLDEST_TORCH}", f"Get a newer one: pip install 'torch>={OLDEST_TORCH}'.")
        super().__init__(config, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info=False, **kwargs):
        """As transformers', and stricter: weights that the checkpoint lacks are an error.

        A baseline (`num_fusion_layers=0`) loaded with `num_fusion_layers=k` gets fusion on top: it starts from the
        text encoder's own attention with gates of zero, so that the model still is the baseline.

        Who asks for the report (`output_loading_info=True`) or allows other shapes (`ignore_mismatched_sizes=True`)
        gets them initialised, as in other models.

        Raises:
            ValueError: the checkpoint lacks weights.
            RuntimeError: its weights have other shapes than the configuration says.
        """
        try:
            model, info = super().from_pretrained(
                pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
            )
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise RuntimeError(
                f"The weights of {pretrained_model_name_or_path} have other shapes than its configuration says (see "
                "the report above), as with another label set or `pointer_offset`: leave out `config` and its "
                "fields, so that the checkpoint's own count. `ignore_mismatched_sizes=True` starts such parts anew."
            ) from error
        model.config.check()  # fields given beside the checkpoint's come after its own check
        wanted = output_loading_info or kwargs.get("ignore_mismatched_sizes") or pretrained_model_name_or_path is None
        encoder = model.get_encoder()
        fresh = {name for name in info["missing_keys"] if encoder.is_fusion(name)}
        place = {name: value for name, value in kwargs.items() if name in PLACE}
        if fresh and cls.config_class.from_pretrained(pretrained_model_name_or_path, **place).num_fusion_layers == 0:
            encoder.add_fusion()
            info["missing_keys"] = set(info["missing_keys"]) - fresh
        if info["missing_keys"] and not wanted:
            missing = sorted(info["missing_keys"])
            raise ValueError(
                f"{pretrained_model_name_or_path} lacks {len(missing)} weights of {cls.__name__}, such as "
                f"{missing[0]}: it is no whole checkpoint of this configuration. Load the class that it was saved "
                "from, or give output_loading_info=True to have them initialised and listed."
            )
        encoder.freeze_parts()  # loading makes every parameter trainable
        return (model, info) if output_loading_info else model

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Embedding:
        """As transformers'; the rationale encoder, a copy of the text encoder, gets the same new rows."""
        before = self.get_input_embeddings().num_embeddings
        table = super().resize_token_embeddings(*args, **kwargs)
        encoder = self.get_encoder()
        if encoder.rationale_model is not None and table.num_embeddings != before:
            copied = encoder.rationale_model.resize_token_embeddings(table.num_embeddings, mean_resizing=False)
            with torch.no_grad():
                copied.weight[before:] = table.weight[before:]
            encoder.freeze_parts()
        return table

    def _recorded(self, **flags: bool | None) -> dict[str, bool]:
        """Which outputs parts are asked to record: those of the call, and where it says nothing, of the config."""
        flags = {name: getattr(self.config, name) if flag is None else flag for name, flag in flags.items()}
        return {name: flag for name, flag in flags.items() if flag}

    def post_init(self):
        super().post_init()
        # FSDP shards these, adds those of text and vision model, and takes no name that the model lacks. It gathers a
        # part where its forward is called, which for tables of embeddings is outside of the module that holds them.
        with_tables = {m for m in self.modules() if any(isinstance(part, nn.Embedding) for part in m.modules())}
        self._no_split_modules &= {type(m).__name__ for m in self.modules() if m not in with_tables}

    def load_adapter(self, *args, **kwargs):
        report = super().load_adapter(*args, **kwargs)
        if unmatched := sorted({*report.missing_keys, *report.unexpected_keys}):
            raise ValueError(f"The adapter does not fit this model: {len(unmatched)} weights such as {unmatched[0]}.")
        return report

    def set_attn_implementation(self, *args, **kwargs):
        super().set_attn_implementation(*args, **kwargs)
        for module in self.modules():
            if isinstance(module, LRSACrossAttention):
                module.config = self.config  # a copy of a fusion layer, as PEFT makes, has a copy of it

    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, LRSADualCrossAttention) and module.gate is not None:
            init.zeros_(module.gate)
        if isinstance(module, LRSACrossAttention) and module.match_bias is not None:
            init.constant_(module.match_bias, float(self.config.fusion_match_bias))
        if isinstance(module, LRSAMatchEmbeddings):
            init.zeros_(module.text_rationale)
            init.zeros_(module.image_rationale)
