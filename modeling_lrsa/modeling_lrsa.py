"""LRSA models: `LRSAModel` and, with the pointer head and `generate`, `LRSAForMABSA`."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bart.modeling_bart import BartDecoder
from transformers.utils import can_return_tuple, logging

from .configuration_lrsa import LRSAConfig
from .encoder_lrsa import LRSAEncoder, LRSAEncoderOutput, LRSAPreTrainedModel, encoder_layers, norm_in_front_of, text_encoder_of
from .fusion_lrsa import initialize_fusion_from_layer
from .grammar_lrsa import LRSAGrammarLogitsProcessor, is_valid, text_units
from .pointer_lrsa import LRSAPointerHead


logger = logging.get_logger(__name__)

DEFAULT_NEW_TOKENS = 61  # twenty triples and EOS


@dataclass
class LRSAOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*, with `labels`):
            Cross-entropy over targets: the mean, or the sum over `num_items_in_batch`.
        logits (`torch.FloatTensor` of shape `(batch, target length, pointer_offset + text)`, of `LRSAForMABSA`):
            Scores of the targets.
        last_hidden_state (`torch.FloatTensor` of shape `(batch, target length, hidden)`, of `LRSAModel`):
            Decoder states.
        past_key_values (`Cache`, *optional*):
            Keys and values of the decoder.
        decoder_hidden_states, decoder_attentions, cross_attentions, encoder_last_hidden_state, encoder_hidden_states,
        encoder_attentions: as BART's.
        fusion_attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_fusion_attentions=True`):
            See [`LRSAEncoderOutput`].
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    past_key_values: Cache | None = None
    decoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    decoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    cross_attentions: tuple[torch.FloatTensor, ...] | None = None
    encoder_last_hidden_state: torch.FloatTensor | None = None
    encoder_hidden_states: tuple[torch.FloatTensor, ...] | None = None
    encoder_attentions: tuple[torch.FloatTensor, ...] | None = None
    fusion_attentions: tuple[torch.FloatTensor, ...] | None = None


class LRSAModel(LRSAPreTrainedModel):
    """Encoder with dual cross-attention, and a decoder over target ids; no head."""

    def __init__(
        self,
        config: LRSAConfig,
        text_model: PreTrainedModel | None = None,
        vision_model: PreTrainedModel | None = None,
        rationale_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        text_model = text_model or AutoModel.from_config(config.text_config)
        self.encoder = LRSAEncoder(config, text_encoder_of(text_model), vision_model, rationale_model)
        if config.text_config.is_encoder_decoder:
            self.decoder = text_model.get_decoder()
            self._tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.text_model.embed_tokens.weight"}
        else:
            self.decoder = BartDecoder(config.decoder_config)
            del self.decoder.embed_tokens  # inputs come as embeddings of targets and of the tokens they point at
        self.target_embeddings = nn.Embedding(config.pointer_offset, config.text_config.hidden_size)
        self.post_init()

    def get_encoder(self, modality=None) -> LRSAEncoder:
        return self.encoder

    def get_decoder(self) -> nn.Module:
        return self.decoder

    def get_input_embeddings(self) -> nn.Module:
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.encoder.set_input_embeddings(value)

    def embed_targets(self, target_ids: torch.LongTensor, encoder_outputs: LRSAEncoderOutput) -> torch.FloatTensor:
        """Embeds target ids (batch, length): a pointer by the column it points at, others by their own embedding."""
        offset = self.config.pointer_offset
        source = encoder_outputs.text_embeds
        if self.config.decoder_pointer_input == "states":
            source = encoder_outputs.last_hidden_state[:, -source.shape[1] :]
        columns = (target_ids - offset).clamp(0, source.shape[1] - 1)
        pointed = source.gather(1, columns.unsqueeze(-1).expand(-1, -1, source.shape[-1]))
        own = self.target_embeddings(target_ids.clamp(max=offset - 1))
        return torch.where((target_ids >= offset).unsqueeze(-1), pointed, own)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_features: torch.FloatTensor | None = None,
        image_attention_mask: torch.Tensor | None = None,
        image_rationale_input_ids: torch.LongTensor | None = None,
        image_rationale_attention_mask: torch.Tensor | None = None,
        text_rationale_input_ids: torch.LongTensor | None = None,
        text_rationale_attention_mask: torch.Tensor | None = None,
        image_rationale_states: torch.FloatTensor | None = None,
        text_rationale_states: torch.FloatTensor | None = None,
        word_ids: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: LRSAEncoderOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_fusion_attentions: bool | None = None,
        **kwargs,
    ) -> LRSAOutput:
        r"""
        See [`LRSAForMABSA.forward`].
        """
        recorded = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        recorded = {key: value for key, value in recorded.items() if value is not None}
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                pixel_values=pixel_values,
                image_features=image_features,
                image_attention_mask=image_attention_mask,
                image_rationale_input_ids=image_rationale_input_ids,
                image_rationale_attention_mask=image_rationale_attention_mask,
                text_rationale_input_ids=text_rationale_input_ids,
                text_rationale_attention_mask=text_rationale_attention_mask,
                image_rationale_states=image_rationale_states,
                text_rationale_states=text_rationale_states,
                word_ids=word_ids,
                inputs_embeds=inputs_embeds,
                output_fusion_attentions=output_fusion_attentions,
                **recorded,
                **kwargs,
            )
        if decoder_input_ids is None:
            decoder_input_ids = torch.full(
                (len(encoder_outputs.text_embeds), 1), self.config.bos_token_id, device=encoder_outputs.text_embeds.device
            )
        decoder_outputs = self.decoder(
            inputs_embeds=self.embed_targets(decoder_input_ids, encoder_outputs),
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=encoder_outputs.source_mask.long(),
            past_key_values=past_key_values,
            use_cache=self.config.use_cache if use_cache is None else use_cache,
            **recorded,
            **kwargs,
        )
        return LRSAOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            past_key_values=decoder_outputs.past_key_values,
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
            fusion_attentions=encoder_outputs.fusion_attentions,
        )


class LRSAForMABSA(LRSAPreTrainedModel, GenerationMixin):
    """LRSA for multimodal aspect-based sentiment analysis: a pointer decoder over [special targets, polarities, columns].

    The vocabulary of a step is as wide as the source text, which `generate` allows.
    """

    def __init__(
        self,
        config: LRSAConfig,
        text_model: PreTrainedModel | None = None,
        vision_model: PreTrainedModel | None = None,
        rationale_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        self.model = LRSAModel(config, text_model, vision_model, rationale_model)
        self.pointer_head = LRSAPointerHead(config)
        self.generation_config.max_new_tokens = DEFAULT_NEW_TOKENS
        self.generation_config.constrained_decoding = True
        self.generation_config._from_model_config = False  # or loading drops what it does not know
        self._keep_target_ids(self.generation_config)
        self.post_init()

    @classmethod
    def from_text_vision_pretrained(
        cls, text: str, vision: str | None = None, dtype: torch.dtype = torch.float32, **config
    ) -> "LRSAForMABSA":
        """Builds a model from a pre-trained text model and, if given, a pre-trained vision model; the rest is fresh.

        Fusion layers start with the weights of the self-attention of the encoder layer that they stand at.

        Args:
            text: id or folder of an encoder or encoder-decoder that `AutoModel` loads.
            vision: id or folder of a vision model whose output is tokens (B, N, D) or a feature map (B, D, H, W).
            config: fields of [`LRSAConfig`].

        Raises:
            TypeError: a name in `config` is no field of `LRSAConfig`.
        """
        if unknown := set(config) - set(LRSAConfig.__dataclass_fields__):
            raise TypeError(f"LRSAConfig has no {', '.join(sorted(unknown))}.")
        text_model = AutoModel.from_pretrained(text, dtype=dtype)
        vision_model = None
        if vision is not None:
            vision_model = AutoModel.from_pretrained(vision, dtype=dtype)
            if vision_model.config.model_type in ("clip", "siglip", "siglip2"):
                vision_model = AutoModel.from_pretrained(
                    vision, config=AutoConfig.from_pretrained(vision).vision_config, dtype=dtype
                )
            config.update(measure_vision_model(vision_model), vision_config=vision_model.config)
        attention = {"": text_model.config._attn_implementation, "text_config": text_model.config._attn_implementation}
        if vision_model is not None:
            attention["vision_config"] = vision_model.config._attn_implementation
        lrsa_config = LRSAConfig(text_config=text_model.config, attn_implementation=attention, **config)
        rationale_model = None
        if lrsa_config.num_fusion_layers and lrsa_config.rationale_encoder == "frozen":
            rationale_model = copy.deepcopy(text_encoder_of(text_model))
        model = cls(lrsa_config, text_model, vision_model, rationale_model)
        model.initialize_fusion()
        return model.to(dtype).eval()

    def initialize_fusion(self) -> None:
        """Gives the fusion layers the self-attention weights of the encoder layers that they stand at, or next to."""
        fusion = self.model.encoder.fusion
        if not len(fusion):
            return
        text_model = self.model.encoder.text_model
        layers = encoder_layers(text_model)
        last = len(layers) - 1
        depths = {"before": [0] * len(fusion), "after": [last] * len(fusion)}
        depths = depths.get(self.config.fusion_position, range(len(layers) - len(fusion), len(layers)))
        done = [
            initialize_fusion_from_layer(block, layers[depth], norm_in_front_of(text_model, layers, depth))
            for block, depth in zip(fusion, depths)
        ]
        if not all(done):
            name = type(text_model).__name__
            logger.warning(f"The self-attention of {name} is not one that fusion can start from: fusion starts at random.")

    def initialize_polarities(self, tokenizer) -> None:
        """Gives each polarity the mean embedding of the tokens of its name."""
        embeddings = self.get_input_embeddings().weight
        with torch.no_grad():
            for index, label in self.config.id2label.items():
                ids = tokenizer(label, add_special_tokens=False).input_ids
                target = self.config.num_special_targets + index
                self.model.target_embeddings.weight[target] = embeddings[ids].mean(0)

    def get_encoder(self, modality=None) -> LRSAEncoder:
        return self.model.encoder

    def get_decoder(self) -> nn.Module:
        return self.model.decoder

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.model.set_input_embeddings(value)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """Returns the decoder inputs (batch, length) for `labels` (batch, length): BOS, then `labels` without the last."""
        inputs = nn.functional.pad(labels[:, :-1], (1, 0), value=self.config.bos_token_id)
        return inputs.masked_fill(inputs == -100, self.config.pad_token_id)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        image_features: torch.FloatTensor | None = None,
        image_attention_mask: torch.Tensor | None = None,
        image_rationale_input_ids: torch.LongTensor | None = None,
        image_rationale_attention_mask: torch.Tensor | None = None,
        text_rationale_input_ids: torch.LongTensor | None = None,
        text_rationale_attention_mask: torch.Tensor | None = None,
        image_rationale_states: torch.FloatTensor | None = None,
        text_rationale_states: torch.FloatTensor | None = None,
        word_ids: torch.LongTensor | None = None,
        aspect_spans: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: LRSAEncoderOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_fusion_attentions: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs,
    ) -> LRSAOutput:
        r"""
        Args:
            input_ids, attention_mask (`(batch, text)`):
                The text alone.
            pixel_values (`(batch, channels, height, width)`, *optional*):
                Pictures.
            image_features (`(batch, num_image_tokens, image_feature_size)`, *optional*):
                Precomputed region features, or what `get_image_features` gave, in place of `pixel_values`.
            image_attention_mask (`(batch,)`, *optional*):
                0 at rows without picture. All rows have one by default.
            image_rationale_input_ids, image_rationale_attention_mask, text_rationale_input_ids,
            text_rationale_attention_mask (`(batch, rationale tokens)`, *optional*):
                The rationales; a mask row of zeros is a missing one.
            image_rationale_states, text_rationale_states (`(batch, rationale tokens, depths, hidden)`, *optional*):
                What `get_rationale_states` gave, in place of the ids.
            word_ids (`(batch, text)`, *optional*):
                Word of each text column, -1 at special tokens and padding: pointers then keep to words.
            aspect_spans (`(batch, spans, 2)`, *optional*):
                Source columns of gold spans, padded with -1: `generate` then gives their polarities (MASC).
            labels (`(batch, target length)`, *optional*):
                Target ids from the first start to EOS, -100 elsewhere, without the prefix.
            num_items_in_batch (*optional*):
                Targets of the whole batch over all devices and accumulation steps; the loss is then their sum over it.
        """
        recorded = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "output_fusion_attentions": output_fusion_attentions,
        }
        recorded = {key: value for key, value in recorded.items() if value is not None}
        if encoder_outputs is None:
            encoder_outputs = self.model.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                pixel_values=pixel_values,
                image_features=image_features,
                image_attention_mask=image_attention_mask,
                image_rationale_input_ids=image_rationale_input_ids,
                image_rationale_attention_mask=image_rationale_attention_mask,
                text_rationale_input_ids=text_rationale_input_ids,
                text_rationale_attention_mask=text_rationale_attention_mask,
                image_rationale_states=image_rationale_states,
                text_rationale_states=text_rationale_states,
                word_ids=word_ids,
                inputs_embeds=inputs_embeds,
                **recorded,
                **kwargs,
            )
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **recorded,
            **kwargs,
        )
        logits = self.pointer_head(
            outputs.last_hidden_state,
            self.model.target_embeddings.weight,
            self._source_keys(encoder_outputs),
            encoder_outputs.pointer_mask,
        )
        loss = None
        if labels is not None:
            reduction = "mean" if num_items_in_batch is None else "sum"
            loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction=reduction)
            if num_items_in_batch is not None:
                loss = loss / num_items_in_batch
        parts = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return LRSAOutput(loss=loss, logits=logits, **parts)

    def _source_keys(self, encoder_outputs: LRSAEncoderOutput) -> torch.Tensor:
        if encoder_outputs.source_keys is not None:
            return encoder_outputs.source_keys
        text_embeds = encoder_outputs.text_embeds
        return self.pointer_head.source_keys(encoder_outputs.last_hidden_state[:, -text_embeds.shape[1] :], text_embeds)

    def _keep_target_ids(self, generation_config):
        """Special ids are target ids: a `Trainer` given the processor would put the tokenizer's in their place."""
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            setattr(generation_config, name, getattr(self.config, name))
        generation_config.forced_eos_token_id = None  # BART's is a token, here it would be a polarity

    def save_pretrained(self, *args, **kwargs):
        self._keep_target_ids(self.generation_config)
        super().save_pretrained(*args, **kwargs)

    def _prepare_generation_config(self, generation_config, **kwargs):
        generation_config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        self._keep_target_ids(generation_config)
        return generation_config, model_kwargs

    def _prepare_text_encoder_decoder_kwargs_for_generation(self, inputs_tensor, model_kwargs, *args, **kwargs):
        model_kwargs = super()._prepare_text_encoder_decoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, *args, **kwargs
        )
        encoder_outputs = model_kwargs["encoder_outputs"]
        encoder_outputs.source_keys = self._source_keys(encoder_outputs)
        return model_kwargs

    def _get_logits_processor(self, generation_config, input_ids_seq_length=None, model_kwargs=None, **kwargs):
        processors = super()._get_logits_processor(
            generation_config, input_ids_seq_length=input_ids_seq_length, model_kwargs=model_kwargs, **kwargs
        )
        spans = (model_kwargs or {}).get("aspect_spans")
        if getattr(generation_config, "constrained_decoding", True) or spans is not None:
            units = text_units(model_kwargs["encoder_outputs"].pointer_mask, model_kwargs.get("word_ids"))
            processors.append(
                LRSAGrammarLogitsProcessor(
                    self.config, units, input_ids_seq_length, generation_config.max_length, spans
                )
            )
        return processors

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, aspect_spans: torch.LongTensor | None = None, **kwargs):
        """transformers' `generate`, over target ids.

        The grammar is on unless `constrained_decoding=False`. Sequences that beam search returns beyond the number of valid
        ones are EOS alone.

        Args:
            aspect_spans: (batch, spans, 2) source columns, padded with -1. Where given, the polarities of exactly these
                spans are asked (MASC).
        """
        if aspect_spans is not None:
            kwargs["aspect_spans"] = aspect_spans
            kwargs["max_new_tokens"] = 3 * aspect_spans.shape[1] + 1
        elif kwargs.get("max_length") is not None and kwargs.get("max_new_tokens") is None:
            kwargs["max_new_tokens"] = kwargs.pop("max_length") - 1  # or the default in generation_config would go first
        outputs = super().generate(inputs, **kwargs)
        sequences = outputs if isinstance(outputs, torch.Tensor) else outputs.sequences
        settings, _ = self._prepare_generation_config(kwargs.pop("generation_config", None), **kwargs)
        if settings.constrained_decoding or aspect_spans is not None:
            self._blank_leftovers(sequences, settings.num_beams > 1, inputs, **kwargs)
        return outputs

    def _blank_leftovers(
        self, sequences, beams, inputs=None, input_ids=None, inputs_embeds=None, attention_mask=None, **kwargs
    ):
        """Turns rows that break off, and with beams rows that repeat a former one of their post, into EOS alone."""
        source = next(tensor for tensor in (input_ids, inputs_embeds, inputs) if tensor is not None)
        if attention_mask is None:
            attention_mask = torch.ones(source.shape[:2], device=source.device)
        word_ids, spans = kwargs.get("word_ids"), kwargs.get("aspect_spans")
        copies = len(sequences) // len(source)
        units = text_units(self.model.encoder.pointer_mask(attention_mask.bool(), word_ids), word_ids)
        targets = sequences[:, 1:]
        spans = None if spans is None else spans.repeat_interleave(copies, 0)
        broken = ~is_valid(targets, units.repeat_interleave(copies, 0), self.config, spans)
        if beams:
            rows = targets.unflatten(0, (-1, copies))
            broken |= (rows.unsqueeze(1) == rows.unsqueeze(2)).all(-1).tril(-1).any(-1).flatten()
        targets.masked_fill_(broken.unsqueeze(-1), self.config.eos_token_id)

    def compute_transition_scores(self, sequences, scores, beam_indices=None, normalize_logits=False):
        """Scores of the targets of generated sequences, as transformers' own, for a vocabulary as wide as the source.

        Args:
            sequences: (rows, prefix + steps) from `generate`.
            scores: the `scores` from `generate`, one (batch · beams, width) a step.
            beam_indices: (rows, steps) from beam search.

        Returns:
            (rows, steps), 0 after the end of a beam.
        """
        steps = len(scores) if beam_indices is None else min(len(scores), beam_indices.shape[1])
        stacked = torch.stack(scores[:steps], dim=1)  # (batch · beams, steps, width)
        if normalize_logits:
            stacked = stacked.log_softmax(-1)
        if beam_indices is None:
            beam_indices = torch.arange(len(sequences), device=sequences.device).unsqueeze(-1).expand(-1, steps)
        beam_indices = beam_indices[:, :steps]
        prefix = sequences.shape[1] - steps
        step = torch.arange(steps, device=sequences.device)
        chosen = stacked[beam_indices.clamp(min=0).long(), step, sequences[:, prefix:]]
        return chosen.masked_fill(beam_indices < 0, 0.0)


def measure_vision_model(vision_model: PreTrainedModel) -> dict[str, int]:
    """Returns how many tokens of which width a vision model makes of a picture of its own size."""
    size = getattr(vision_model.config, "image_size", 224)
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    channels = getattr(vision_model.config, "num_channels", 3)
    with torch.no_grad():
        features = vision_model.eval()(torch.zeros(1, channels, height, width, dtype=vision_model.dtype)).last_hidden_state
    if features.dim() == 4:
        features = features.flatten(2).transpose(1, 2)
    return {"num_image_tokens": features.shape[1], "image_feature_size": features.shape[2]}


LRSAConfig.register_for_auto_class()
LRSAForMABSA.register_for_auto_class("AutoModel")

__all__ = ["LRSAForMABSA", "LRSAModel", "LRSAOutput", "LRSAPreTrainedModel"]
