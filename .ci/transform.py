"""Prints the CloudFormation template that a SAM template becomes: `transform.py template.yaml > cloudformation.json`.

The transform runs here, with AWS's own translator, and asks no account. cfn-lint of its result finds what cfn-lint of the SAM
template cannot: wrong values of properties that SAM passes through, and references to logical ids that SAM generates.
"""

import json
import os
import sys
from pathlib import Path

# The translator makes a boto session, which wants a region before it does anything.
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samtranslator.translator.transform import transform  # noqa: E402
from samtranslator.yaml_helper import yaml_parse  # noqa: E402


class NoManagedPolicies:
    """Stands in for the list of managed policies that SAM asks IAM for: our template names none."""

    def load(self) -> dict[str, str]:
        return {}


def main(path: Path) -> None:
    template = yaml_parse(path.read_text(encoding="utf-8"))
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            # `sam package` would have put an address here and used up the metadata; the translator refuses a local path.
            resource["Properties"]["CodeUri"] = "s3://bucket/key"
            resource.pop("Metadata", None)
    result = transform(template, {}, NoManagedPolicies())
    result.pop("Transform", None)
    json.dump(result, sys.stdout, indent=1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: transform.py TEMPLATE")
    main(Path(sys.argv[1]))
