"""`generate` over target ids: grammar, given spans, caps."""

import torch
from transformers.generation import GenerationMixin

from .grammar_lrsa import LRSAGrammarLogitsProcessor, is_valid, text_units


DEFAULT_NEW_TOKENS = 61  # twenty triples and EOS


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
        generation_config.forced_eos_token_id = None  # BART's is a token, here it would be a polarity

    def _prepare_generation_config(self, generation_config, **kwargs):
        generation_config, model_kwargs = super()._prepare_generation_config(generation_config, **kwargs)
        self.keep_target_ids(generation_config)
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

        The grammar is on unless `constrained_decoding=False`. Sequences that beam search returns beyond the number of
        valid ones are EOS alone.

        Args:
            aspect_spans: (batch, spans, 2) source columns, padded with -1. Where given, the polarities of exactly
                these spans are asked (MASC).
        """
        if aspect_spans is not None:
            kwargs["aspect_spans"] = aspect_spans
            kwargs["max_new_tokens"] = 3 * aspect_spans.shape[1] + 1
        elif kwargs.get("max_length") is not None and kwargs.get("max_new_tokens") is None:
            # The default of max_new_tokens in generation_config would go before it.
            kwargs["max_new_tokens"] = kwargs.pop("max_length") - 1
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
