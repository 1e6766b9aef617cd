"""Coverage-guided fuzzing of the HTTP/1.1 engine by atheris: `python -m tests.fuzz`. Not part of the suite."""
