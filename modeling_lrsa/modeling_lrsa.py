"""LRSA models: `LRSAModel` and, with the pointer head and `generate`, `LRSAForMABSA`."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.models.bart.modeling_bart import BartDecoder
from transformers.utils import can_return_tuple

from .backbones_lrsa import load_vision_model, measure_vision_model, text_encoder_of
from .configuration_lrsa import LRSAConfig
from .encoder_lrsa import LRSAEncoder, LRSAEncoderOutput
from .explanation_lrsa import explain
from .generation_lrsa import LRSAGenerationMixin
from .pointer_lrsa import LRSAPointerHead
from .pretrained_lrsa import CACHE, LRSAPreTrainedModel
from .tagging_lrsa import LRSATagger


@dataclass
class LRSAOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`, *optional*, with `labels`):
            Cross-entropy over targets: the mean, or the sum over `num_items_in_batch`. In training `tagging_loss` is
            added.
        tagging_loss (`torch.FloatTensor`, *optional*, in training with `labels` and `tagging_weight`):
            Weighted cross-entropy over tags of the text's columns, summed, over as many items as `loss`.
        logits (`torch.FloatTensor` of shape `(batch, target length, pointer_offset + text)`, of `LRSAForMABSA`):
            Scores of the targets.
        last_hidden_state (`torch.FloatTensor` of shape `(batch, target length, hidden)`, of `LRSAModel`):
            Decoder states.
        cache (`Cache`, *optional*; `past_key_values` before transformers 5.24):
            Keys and values of the decoder.
        decoder_hidden_states, decoder_attentions, cross_attentions, encoder_last_hidden_state, encoder_hidden_states,
        encoder_attentions: as BART's.
        fusion_attentions (`tuple(torch.FloatTensor)`, *optional*, with `output_fusion_attentions=True`):
            See [`LRSAEncoderOutput`].
    """

    loss: torch.FloatTensor | None = None
    tagging_loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    last_hidden_state: torch.FloatTensor | None = None
    if CACHE == "cache":
        cache: Cache | None = None
    else:
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
        else:
            self.decoder = BartDecoder(config.decoder_config)
        del self.decoder.embed_tokens  # inputs come as embeddings of targets and of the tokens they point at
        self.target_embeddings = None
        if config.target_token_ids is None:
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

    def target_rows(self, as_inputs: bool = False) -> torch.Tensor:
        """Returns the embeddings (pointer_offset, hidden) of the targets before the columns."""
        if self.target_embeddings is not None:
            return self.target_embeddings.weight
        ids = as_inputs and self.config.decoder_input_token_ids or self.config.target_token_ids
        table = self.get_input_embeddings()  # called, or FSDP leaves its rows where they are
        return table(torch.tensor(ids, device=table.weight.device))

    def embed_targets(
        self,
        target_ids: torch.LongTensor,
        encoder_outputs: LRSAEncoderOutput,
        target_rows: torch.FloatTensor | None = None,
    ) -> torch.FloatTensor:
        """Embeds target ids (batch, length): a pointer by the column it points at, others by their own embedding.

        Args:
            target_rows: what `target_rows` gave, where it has been asked already.
        """
        offset = self.config.pointer_offset
        source = encoder_outputs.text_embeds
        if self.config.decoder_pointer_input == "states":
            source = encoder_outputs.text_states
        target_ids = target_ids.to(source.device)
        columns = (target_ids - offset).clamp(0, source.shape[1] - 1)
        pointed = source.gather(1, columns.unsqueeze(-1).expand(-1, -1, source.shape[-1]))
        if target_rows is None or self.config.decoder_input_token_ids is not None:
            target_rows = self.target_rows(as_inputs=True)
        own = nn.functional.embedding(target_ids.clamp(max=offset - 1), target_rows.to(source.device))
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
        noun_mask: torch.Tensor | None = None,
        dependency_matrix: torch.FloatTensor | None = None,
        sentiment_value: torch.FloatTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: LRSAEncoderOutput | None = None,
        cache: Cache | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        output_fusion_attentions: bool | None = None,
        target_rows: torch.FloatTensor | None = None,
        **kwargs,
    ) -> LRSAOutput:
        r"""
        See [`LRSAForMABSA.forward`]; `target_rows` is as in `embed_targets`.
        """
        recorded = self._recorded(output_attentions=output_attentions, output_hidden_states=output_hidden_states)
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
                noun_mask=noun_mask,
                dependency_matrix=dependency_matrix,
                sentiment_value=sentiment_value,
                inputs_embeds=inputs_embeds,
                output_fusion_attentions=output_fusion_attentions,
                **recorded,
                **kwargs,
            )
        if decoder_input_ids is None:
            prefix = torch.tensor([self.config.decoder_prefix], device=encoder_outputs.text_embeds.device)
            decoder_input_ids = prefix.repeat(encoder_outputs.text_embeds.shape[0], 1)
        decoder_outputs = self.decoder(
            inputs_embeds=self.embed_targets(decoder_input_ids, encoder_outputs, target_rows),
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=encoder_outputs.source_mask.long(),
            use_cache=self.config.use_cache if use_cache is None else use_cache,
            **{CACHE: past_key_values if cache is None else cache},
            **recorded,
            **kwargs,
        )
        return LRSAOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            **{CACHE: decoder_outputs.get(CACHE)},
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
            fusion_attentions=encoder_outputs.fusion_attentions,
        )


class LRSAForMABSA(LRSAPreTrainedModel, LRSAGenerationMixin):
    """LRSA for multimodal aspect-based sentiment analysis: a pointer decoder over [special targets, polarities,
    columns].

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
        self.tagger = LRSATagger(config) if config.tagging_weight else None
        self.set_generation_defaults()
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
            vision_model = load_vision_model(vision, dtype)
            config.update(measure_vision_model(vision_model), vision_config=vision_model.config)
        attention = {"": text_model.config._attn_implementation, "text_config": text_model.config._attn_implementation}
        if vision_model is not None:
            attention["vision_config"] = vision_model.config._attn_implementation
        lrsa_config = LRSAConfig(text_config=text_model.config, attn_implementation=attention, **config)
        rationale_model = None
        if lrsa_config.num_fusion_layers and lrsa_config.rationale_encoder == "frozen":
            rationale_model = copy.deepcopy(text_encoder_of(text_model))
        model = cls(lrsa_config, text_model, vision_model, rationale_model)
        model.model.encoder.initialize_fusion()
        return model.to(dtype).eval()

    def initialize_polarities(self, tokenizer) -> None:
        """Gives each polarity the mean embedding of the tokens of its name."""
        if self.model.target_embeddings is None:
            return  # they are tokens' already
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

    def save_pretrained(self, *args, **kwargs):
        self.keep_target_ids(self.generation_config)
        # FSDP puts a class of its own in place of the model's; saved, it would name torch's files as the model's code.
        current = type(self)
        self.__class__ = next(base for base in current.__mro__ if not base.__module__.startswith("torch."))
        try:
            super().save_pretrained(*args, **kwargs)
        finally:
            self.__class__ = current

    def explain(self, processor, inputs, sequences: torch.LongTensor) -> list[list[dict]]:
        """Tells of each triple which rationale words and which patches of the picture it drew on.

        See `explain` of `explanation_lrsa.py`.
        """
        return explain(self, processor, inputs, sequences)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.LongTensor) -> torch.LongTensor:
        """Returns the decoder inputs (batch, prefix - 1 + length) for `labels` (batch, length).

        The prefix, then `labels` without the last.
        """
        prefix = labels.new_tensor([self.config.decoder_prefix]).expand(labels.shape[0], -1)
        inputs = torch.cat([prefix, labels[:, :-1]], dim=1)
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
        noun_mask: torch.Tensor | None = None,
        dependency_matrix: torch.FloatTensor | None = None,
        sentiment_value: torch.FloatTensor | None = None,
        aspect_spans: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: LRSAEncoderOutput | None = None,
        cache: Cache | None = None,
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
            noun_mask (`(batch, text)`, *optional*), dependency_matrix (`(batch, text, text)`, *optional*),
            sentiment_value (`(batch, text)`, *optional*):
                For AoM's modules: columns of nouns, edges between the columns of words of which one heads the other or
                its head, and the sentiment of words, 0 without.
            aspect_spans (`(batch, spans, 2)`, *optional*):
                Source columns of gold spans, padded with -1: `generate` then gives their polarities (MASC).
            labels (`(batch, target length)`, *optional*):
                Target ids from the first start to EOS, -100 elsewhere, without the prefix.
            cache (*optional*):
                Keys and values of earlier targets. `past_key_values` is its name before transformers 5.24.
            num_items_in_batch (*optional*):
                Targets of the whole batch over all devices and accumulation steps; the loss is then their sum over it.
        """
        recorded = self._recorded(output_attentions=output_attentions, output_hidden_states=output_hidden_states)
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
                noun_mask=noun_mask,
                dependency_matrix=dependency_matrix,
                sentiment_value=sentiment_value,
                inputs_embeds=inputs_embeds,
                output_fusion_attentions=output_fusion_attentions,
                **recorded,
                **kwargs,
            )
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        # Once for both: on the way back each look-up fills a gradient as large as the vocabulary.
        target_rows = self.model.target_rows()
        outputs = self.model(
            encoder_outputs=encoder_outputs,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            cache=past_key_values if cache is None else cache,
            use_cache=use_cache,
            target_rows=target_rows,
            **recorded,
            **kwargs,
        )
        states = outputs.last_hidden_state
        if labels is not None:
            states = states[:, -labels.shape[1] :]  # nothing is asked of the prefix but its last
        logits = self.pointer_head(
            states,
            target_rows,
            self._source_keys(encoder_outputs),
            encoder_outputs.pointer_mask,
        )
        loss = tagging_loss = None
        if labels is not None:
            labels = labels.to(logits.device)
            number = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
            loss = (
                nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="sum") / number
            )
            if self.tagger is not None and self.training:
                mask = encoder_outputs.pointer_mask
                tagging_loss = self.tagger(encoder_outputs.text_states, labels, mask, word_ids)
                tagging_loss = self.config.tagging_weight * tagging_loss / number
                loss = loss + tagging_loss
        parts = {name: value for name, value in outputs.items() if name != "last_hidden_state"}
        return LRSAOutput(loss=loss, tagging_loss=tagging_loss, logits=logits, **parts)

    def _source_keys(self, encoder_outputs: LRSAEncoderOutput) -> torch.Tensor:
        if encoder_outputs.source_keys is not None:
            return encoder_outputs.source_keys
        return self.pointer_head.source_keys(encoder_outputs.text_states, encoder_outputs.text_embeds)


LRSAConfig.register_for_auto_class()
LRSAForMABSA.register_for_auto_class("AutoModel")

__all__ = ["LRSAForMABSA", "LRSAModel", "LRSAOutput", "LRSAPreTrainedModel"]
