"""transformers' tests of processors, with and without image processor."""

import unittest

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerFast
from transformers_suite.test_processing_common import ProcessorTesterMixin

from processing import LRSAProcessor


class ProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = LRSAProcessor

    @classmethod
    def _setup_tokenizer(cls):
        vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "lower": 5, "newer": 6, "upper": 7}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
        )

    @classmethod
    def _setup_image_processor(cls):
        return CLIPImageProcessorPil(do_center_crop=False)
