import pytest
import torch


@pytest.mark.parametrize("image", ["vit", "resnet", "regions"])
@pytest.mark.parametrize("reader", ["text", "queries"])
def test_pictures_of_other_rows_do_not_count(tiny, image, reader):
    model = tiny.model(image=image, num_fusion_layers=1, image_rationale_reader=reader)
    posts = tiny.mixed_posts(model)
    blind = [post | {"image": None} for post in posts]
    without = torch.tensor([post["image"] is None for post in posts])
    with torch.no_grad():
        one, two = model(**tiny.batch(posts)).logits, model(**tiny.batch(blind)).logits
    assert not any(name in tiny.batch(blind) for name in ("pixel_values", "image_features"))
    torch.testing.assert_close(one[without], two[without], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(one[~without], two[~without], atol=1e-3)


@pytest.mark.parametrize("image", ["vit", "regions"])
def test_what_a_masked_picture_shows_does_not_count(tiny, image):
    model = tiny.model(image=image, num_fusion_layers=1)
    inputs = tiny.batch(tiny.mixed_posts(model))
    name = "pixel_values" if image == "vit" else "image_features"
    missing = inputs["image_attention_mask"] == 0
    noisy = inputs[name].clone()
    noisy[missing] = 50.0
    with torch.no_grad():
        one, two = model(**inputs).logits, model(**inputs | {name: noisy}).logits
    assert torch.equal(one, two)


def test_feature_map_is_read_row_by_row(tiny):
    model = tiny.model(image="resnet")
    encoder, pixels = model.get_encoder(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = encoder.get_image_features(pixels)
        grid = encoder.vision_model(pixels).last_hidden_state
    assert grid.shape == (2, 12, 4, 4) and tokens.shape == (2, 16, 12)
    for row in range(4):
        for column in range(4):
            assert torch.equal(tokens[:, 4 * row + column], grid[:, :, row, column])


@pytest.mark.parametrize("image", ["vit", "resnet"])
def test_features_in_place_of_pixels(tiny, image):
    model = tiny.model(image=image, num_fusion_layers=1)
    inputs = tiny.batch(tiny.mixed_posts(model))
    with torch.no_grad():
        want = model(**inputs).logits
        inputs["image_features"] = model.get_encoder().get_image_features(inputs.pop("pixel_values"))
        torch.testing.assert_close(model(**inputs).logits, want)


def test_features_of_another_shape(tiny):
    model = tiny.model(image="regions")
    ids = torch.randint(5, tiny.VOCABULARY, (2, 6))
    for shape in ((2, 3, 10), (2, 4, 9)):
        with pytest.raises(ValueError, match=r"4 slots of width 10, but these pictures give .*`image_features`"):
            model(input_ids=ids, image_features=torch.randn(shape))


def test_text_model_takes_no_pictures(tiny):
    ids = torch.randint(5, tiny.VOCABULARY, (1, 6))
    for name in ("pixel_values", "image_features"):
        with pytest.raises(ValueError, match="no image side: leave out"):
            tiny.model()(input_ids=ids, **{name: torch.randn(1, 4, 10)})


def test_queries_stand_in_for_a_missing_picture(tiny):
    """Slots of the block: a picture's features, as many queries as there are, or nothing."""
    model = tiny.model(image="regions", num_fusion_layers=1, image_rationale_reader="queries")
    encoder = model.get_encoder()
    posts = tiny.mixed_posts(model)
    with torch.no_grad():
        outputs = encoder(**tiny.batch(posts))
    for post, mask in zip(posts, outputs.source_mask[:, :4].tolist()):
        want = 4 if post["image"] is not None else 3 if post["image_rationale"] else 0
        assert mask == [True] * want + [False] * (4 - want)


@pytest.mark.parametrize("reader", ["text", "queries"])
def test_image_rationale_counts_without_picture(tiny, reader):
    model = tiny.model(image="regions", num_fusion_layers=1, image_rationale_reader=reader)
    posts = [tiny.post(model, seed, image_rationale=5) for seed in range(3)]
    other = [post | {"image_rationale": post["image_rationale"][::-1]} for post in posts]
    none = [post | {"image_rationale": []} for post in posts]
    with torch.no_grad():
        logits = [model(**tiny.batch(p)).logits for p in (posts, other, none)]
    assert not torch.allclose(logits[0], logits[1], atol=1e-3)
    assert not torch.allclose(logits[0], logits[2], atol=1e-3)
