"""The lines that say whether a figure holds."""


def verdict(text: str, passed: bool) -> bool:
    """Print a line of the verdict."""
    print(f"{'PASS' if passed else 'FAIL'}  {text}", flush=True)
    return passed
