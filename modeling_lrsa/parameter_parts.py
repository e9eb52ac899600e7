"""Which part of a model a parameter belongs to: parts are trained at rates of their own, or not at all."""

from .configuration_lrsa import LRSAConfig


def part_of(name: str, config: LRSAConfig) -> str:
    """Returns which part a parameter belongs to: `pretrained`, `lora`, `new`, `fusion` or `gate`.

    PEFT's prefixes and infixes in the name do no harm.
    """
    if ".lora_" in name:
        return "lora"
    if ".fusion." in name:
        return "gate" if name.endswith((".gate", ".match_bias")) else "fusion"
    pretrained = [".encoder.text_model.", ".encoder.vision_model.", ".encoder.rationale_model."]
    if config.text_config.is_encoder_decoder:
        pretrained.append("model.decoder.")
    return "pretrained" if any(part in name for part in pretrained) else "new"
