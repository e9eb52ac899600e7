"""transformers' tests of models, over five configurations."""

import unittest

import torch
from testers import LRSATester, bart_config, bert_config, efficientnet_config, vit_config
from transformers_suite import test_modeling_common
from transformers_suite.generation.test_utils import GenerationTesterMixin
from transformers_suite.test_configuration_common import ConfigTester
from transformers_suite.test_fsdp_mixin import FSDPTesterMixin
from transformers_suite.test_modeling_common import ModelTesterMixin

from modeling_lrsa import LRSAConfig, LRSAForMABSA, LRSAModel


# The suite knows by these lists that a base model has no loss.
test_modeling_common.MODEL_MAPPING_NAMES = {**test_modeling_common.MODEL_MAPPING_NAMES, "lrsa": "LRSAModel"}


class Conformance(ModelTesterMixin, GenerationTesterMixin, FSDPTesterMixin):
    all_model_classes = (LRSAModel, LRSAForMABSA)
    is_encoder_decoder = True
    _is_composite = True

    def setUp(self):
        self.model_tester = self.tester()
        self.config_tester = ConfigTester(self, config_class=LRSAConfig, has_text_modality=False)

    def test_config(self):
        self.config_tester.run_common_tests()

    def test_inputs_embeds_matches_input_ids(self):
        """Targets are columns and polarities, no tokens: there are no `decoder_inputs_embeds` to compare."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = LRSAModel(config).eval()
        input_ids = inputs.pop("input_ids")
        with torch.no_grad():
            wanted = model(input_ids=input_ids, **inputs)[0]
            found = model(inputs_embeds=model.get_input_embeddings()(input_ids), **inputs)[0]
        torch.testing.assert_close(found, wanted)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is LRSAForMABSA:
            del inputs["decoder_input_ids"]
            inputs["labels"] = torch.tensor([[5, 5, 2, 1]] * len(inputs["input_ids"]))
        return inputs


class BartViTTest(Conformance, unittest.TestCase):
    def tester(self):
        image = {"vision_config": vit_config().to_dict(), "num_image_tokens": 5, "image_feature_size": 24}
        return LRSATester(self, bart_config(), image, (3, 8, 8))


class BertEfficientNetTest(Conformance, unittest.TestCase):
    def tester(self):
        image = {"vision_config": efficientnet_config().to_dict(), "num_image_tokens": 16, "image_feature_size": 128}
        return LRSATester(self, bert_config(), image, (3, 32, 32))


class TextOnlyTest(Conformance, unittest.TestCase):
    def tester(self):
        return LRSATester(self, bert_config())


class BartRegionsTest(Conformance, unittest.TestCase):
    def tester(self):
        return LRSATester(self, bart_config(), {"num_image_tokens": 4, "image_feature_size": 10}, (4, 10))


class AoMTest(Conformance, unittest.TestCase):
    def tester(self):
        form = {
            "decoder_pointer_input": "embeddings",
            "num_special_targets": 3,
            "target_token_ids": [0, 2, 5, 6, 7, 8],
            "decoder_prefix": [0, 2, 2],
            "image_bracket_token_ids": [9, 10],
            "aspect_attention": True,
            "num_graph_layers": 2,
        }
        return LRSATester(
            self, bart_config(), {"num_image_tokens": 4, "image_feature_size": 10}, (4, 10), brackets=2, **form
        )
