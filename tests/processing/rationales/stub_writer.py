"""A writer that answers at once, in this process."""

from collections import Counter

from processing.rationales import Answer, Failure, GenerationSettings


class StubWriter:
    """Answers in groups of `at_once`, the last first; `answer` makes an answer of a request."""

    def __init__(self, answer=None, at_once=4, model="stub", sees_pictures=True, settings=GenerationSettings()):
        self.model, self.settings, self.sees_pictures, self.at_once = model, settings, sees_pictures, at_once
        self.answer = answer or (lambda request: Answer(f"About: {text_of(request)}", "stop", 10, 5))
        self.asked = Counter()
        self.closed = False

    def write(self, requests):
        group = []
        try:
            for name, request in requests:
                group.append((name, request))
                if len(group) == self.at_once:
                    yield from self.answers(group)
                    group = []
            yield from self.answers(group)
        finally:
            self.closed = True

    def answers(self, group):
        for name, request in reversed(group):
            self.asked[text_of(request)] += 1
            answer = self.answer(request)
            yield name, answer if isinstance(answer, Failure) else answer


def text_of(request) -> str:
    return request.messages[-1]["content"][-1]["text"]
