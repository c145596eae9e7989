"""Say which LoRA adapters a bundle's weights hold: python examples/qwen_image_edit/lora_of.py BUNDLE."""

from __future__ import annotations

import sys

from anyport.bundle import open_bundle


def main() -> None:
    """Print what the step that exported the transformer says."""
    with open_bundle(sys.argv[1]) as bundle:
        steps = bundle.manifest.variants[bundle.manifest.default_variant].steps
    cures = [line for step in steps for line in step.settings.get("cures", [])]
    print("\n".join(line for line in cures if line.startswith("the LoRA ")))


if __name__ == "__main__":
    main()
