from modeling_lrsa.parameter_parts import part_of


def test_part_of(tiny):
    for text, decoder in (("bert", "new"), ("bart", "pretrained")):
        config = tiny.config(text)
        assert part_of("model.decoder.layers.0.fc1.weight", config) == decoder
        assert part_of("model.encoder.text_model.embeddings.weight", config) == "pretrained"
        assert part_of("model.encoder.fusion.0.text.gate", config) == "gate"
        assert part_of("model.encoder.fusion.0.text.rationale_norm.weight", config) == "fusion"
        assert part_of("model.encoder.rationale_queries", config) == "new"
        assert part_of("pointer_head.source_mlp.0.weight", config) == "new"
