"""`generate` over target ids: grammar, given spans, caps."""

import inspect

import torch
from transformers.cache_utils import DynamicCache
from transformers.generation import GenerationMixin
from transformers.masking_utils import create_masks_for_generate

from .encoder_lrsa import LRSAEncoder
from .grammar_lrsa import LRSAGrammarLogitsProcessor, text_units
from .pretrained_lrsa import CACHE


DEFAULT_NEW_TOKENS = 61  # twenty triples and EOS
FILLER_SCORE = -5e8  # below it are the beams that transformers fills up with
# What the encoder and the grammar read, before the first step.
READ_BEFORE = {*inspect.signature(LRSAEncoder.forward).parameters, "aspect_spans"}


class LRSAGenerationMixin(GenerationMixin):
    """transformers' generation with a vocabulary as wide as the source text, for `LRSAForMABSA`."""

    def set_generation_defaults(self):
        self.generation_config.max_new_tokens = DEFAULT_NEW_TOKENS
        self.generation_config.constrained_decoding = True
        self.generation_config._from_model_config = False  # or loading drops what it does not know
        self.keep_target_ids(self.generation_config)

    def keep_target_ids(self, generation_config):
        """Special ids are target ids: a `Trainer` given the processor would put the tokenizer's in their place."""
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"):
            setattr(generation_config, name, getattr(self.config, name))
        if generation_config.forced_eos_token_id != self.config.eos_token_id:
            generation_config.forced_eos_token_id = None  # BART's is a token, here it would be a polarity

    def _prepare_generation_config(self, generation_config, **kwargs):
        settings, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        self.keep_target_ids(settings)
        for caller in (kwargs, {} if generation_config is None else vars(generation_config)):
            if any(caller.get(name) is not None for name in ("max_new_tokens", "max_length")):
                settings.max_new_tokens = caller.get("max_new_tokens")  # the default must not go before a `max_length`
                break
        if (spans := model_kwargs.get("aspect_spans")) is not None:
            settings.max_new_tokens, settings.max_length = 3 * spans.shape[1] + 1, None
        return settings, model_kwargs

    def _prepare_decoder_input_ids_for_generation(self, batch_size, model_input_name, model_kwargs, *args, **kwargs):
        if model_kwargs.get("decoder_input_ids") is None:
            prefix = torch.tensor([self.config.decoder_prefix], device=self.device)
            model_kwargs["decoder_input_ids"] = prefix.repeat(batch_size, 1)
        return super()._prepare_decoder_input_ids_for_generation(
            batch_size, model_input_name, model_kwargs, *args, **kwargs
        )

    def prepare_inputs_for_generation(self, *args, **kwargs):
        """Leaves out what no step reads, or a compiled step would be compiled for every mixture of inputs."""
        inputs = super().prepare_inputs_for_generation(*args, **kwargs)
        return {name: value for name, value in inputs.items() if name not in READ_BEFORE}

    @staticmethod
    def create_masks_for_generate(config, **kwargs):
        """Masks for a static cache: the decoder's, since the encoder may have other attention and kinds of layers."""
        return create_masks_for_generate(config.get_text_config(decoder=True), **kwargs)

    def _prepare_text_encoder_decoder_kwargs_for_generation(self, inputs_tensor, model_kwargs, *args, **kwargs):
        model_kwargs = super()._prepare_text_encoder_decoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, *args, **kwargs
        )
        encoder_outputs = model_kwargs["encoder_outputs"]
        encoder_outputs.source_keys = self._source_keys(encoder_outputs)
        return model_kwargs

    def _prefill(self, input_ids, generation_config, model_kwargs, *args, **kwargs):
        """The first step, once a post: its beams start alike, and so the source is projected once for all of them."""
        beams = max(generation_config.num_beams, generation_config.num_return_sequences)
        cache = model_kwargs.get(CACHE)
        fresh = type(getattr(cache, "self_attention_cache", None)) is DynamicCache and not cache.get_seq_length()
        recorded = generation_config.output_attentions or generation_config.output_hidden_states
        if beams == 1 or not fresh or recorded:
            return super()._prefill(input_ids, generation_config, model_kwargs, *args, **kwargs)

        def first_of(inputs):
            return {name: value[::beams] if torch.is_tensor(value) else value for name, value in inputs.items()}

        first, encoded = first_of(model_kwargs), model_kwargs["encoder_outputs"]
        first["encoder_outputs"] = type(encoded)(**first_of(encoded))
        outputs = super()._prefill(input_ids[::beams], generation_config, first, *args, **kwargs)
        cache.batch_repeat_interleave(beams)
        outputs.logits = outputs.logits.repeat_interleave(beams, dim=0)
        return outputs

    @staticmethod
    def _reorder_cache(cache, beam_indices):
        """Reorders what beams have written; the source that they read is their post's, whichever they are."""
        getattr(cache, "self_attention_cache", cache).reorder_cache(beam_indices)
        return cache

    def _get_logits_processor(self, generation_config, model_kwargs=None, logits_processor=None, **kwargs):
        """Adds the grammar behind the caller's processors.

        What samples (temperature, top-k, top-p) and what normalises comes later, and is left with what is allowed.
        """
        processors = list(logits_processor or ())
        spans = model_kwargs.get("aspect_spans")
        # A model that drafts for another is given the other's grammar: its own would think a draft the whole sequence.
        given = any(isinstance(processor, LRSAGrammarLogitsProcessor) for processor in processors)
        if (getattr(generation_config, "constrained_decoding", True) or spans is not None) and not given:
            units = text_units(model_kwargs["encoder_outputs"].pointer_mask, model_kwargs.get("word_ids"))
            processors.append(
                LRSAGrammarLogitsProcessor(
                    self.config, units, len(self.config.decoder_prefix), generation_config.max_length, spans
                )
            )
        return super()._get_logits_processor(
            generation_config, model_kwargs=model_kwargs, logits_processor=processors, **kwargs
        )

    def _update_finished_beams(self, topk_log_probs, next_token_hits_stopping_criteria, **kwargs):
        """Lets no beam count as finished that may not be: one that the grammar forbids, or that repeats another.

        Where fewer sequences are possible than beams, transformers fills up with beams of scores around -1e9 or -inf.
        Their places stay EOS alone.
        """
        possible = topk_log_probs > FILLER_SCORE
        sequences, scores, beam_indices, finished = super()._update_finished_beams(
            topk_log_probs=topk_log_probs,
            next_token_hits_stopping_criteria=next_token_hits_stopping_criteria & possible,
            **kwargs,
        )
        targets = sequences[:, :, kwargs["decoder_prompt_len"] :]
        targets.masked_fill_(~finished.unsqueeze(-1), self.config.eos_token_id)
        beam_indices = beam_indices.masked_fill(~finished.unsqueeze(-1), -1)
        return sequences, scores, beam_indices, finished

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
