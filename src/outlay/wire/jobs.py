"""stub"""

from typing import Any


class BatchOrder:
    endpoint: str
    input_file: str


class TrainingOrder:
    model: str
    epochs: int
    files: tuple[str, ...]


class JobState:
    id: str
    status: str
    is_over: bool
    output_file: str | None
    trained_tokens: int | None


def batch_lines(data: bytes) -> Any: ...
def batch_results(data: bytes) -> Any: ...
def message_batch_requests(body: bytes) -> Any: ...
def message_batch_results(data: bytes) -> Any: ...
def parse_batch(body: bytes) -> Any: ...
def parse_fine_tuning(body: bytes) -> Any: ...
def read_job(kind: str, data: bytes) -> JobState | None: ...
