"""The software bill of materials that a wheel carries (CycloneDX 1.6, PEP 770): the core, the model, the pictures."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from email.parser import Parser

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

MODEL = "diffcls/models/digits-and-clothes"
PICTURES = "diffcls/models/demo.npz"


def make(content: Mapping[str, bytes], metadata: str, epoch: int) -> str:
    """json, the same for the same wheel.

    Parameters
    ----------
    content : mapping of name to bytes
        Files of the wheel.
    metadata : str
        Its METADATA.
    epoch : int
        Seconds; the document's time.

    Returns
    -------
    str
    """
    fields = Parser().parsestr(metadata)
    licences = LicenseFactory()
    package = Component(
        name=fields["Name"],
        version=fields["Version"],
        description=fields["Summary"],
        type=ComponentType.LIBRARY,
        licenses=[licences.make_from_string("Apache-2.0")],
        purl=PackageURL("pypi", name=fields["Name"], version=fields["Version"]),
        bom_ref="diffcls",
    )
    numpy = Component(  # asked for, not carried
        name="numpy",
        type=ComponentType.LIBRARY,
        purl=PackageURL("pypi", name="numpy"),
        scope=ComponentScope.REQUIRED,
        bom_ref="numpy",
    )
    carried = [
        Component(
            name="digits-and-clothes",
            version=fields["Version"],
            description="weights of the embedded model",
            type=ComponentType.MACHINE_LEARNING_MODEL,
            licenses=[licences.make_from_string(json.loads(content[f"{MODEL}.json"])["licence"])],
            hashes=[_hash(content[f"{MODEL}.safetensors"])],
            bom_ref="model",
        ),
        Component(
            name="demo.npz",
            description="24 pictures of MNIST's and 24 of Fashion-MNIST's test set; see LICENSE-pictures.txt",
            type=ComponentType.DATA,
            licenses=[licences.make_from_string("CC-BY-SA-3.0 AND MIT")],
            hashes=[_hash(content[PICTURES])],
            bom_ref="pictures",
        ),
    ]
    carried += [
        Component(name=name.split("/")[-1], type=ComponentType.FILE, hashes=[_hash(content[name])], bom_ref=name)
        for name in sorted(content)
        if name.endswith(".so")
    ]
    told = "".join(str(digest) for digest in (_hash(content[name]).content for name in sorted(content)))
    bom = Bom(
        components=[numpy, *carried],
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"diffcls {fields['Version']} {told}"),
    )
    bom.metadata.component = package
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.register_dependency(package, [numpy, *carried])
    return JsonV1Dot6(bom).output_as_string(indent=1)


def _hash(data: bytes) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(data).hexdigest())
