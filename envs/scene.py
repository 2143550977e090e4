"""Light and colours of assets/scene.xml for models from other projects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import mujoco

SCENE = Path(__file__).parent / "assets" / "scene.xml"
_UNCOLOURED = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default; with it a geom shows its material


def dress(spec: mujoco.MjSpec, materials: Mapping[str, str], default: str) -> None:
    """Add the light of scene.xml to a model, and colour its geoms with the materials there.

    `materials` maps names of geoms, or of bodies for all their geoms, to materials; other geoms get
    the material `default`. Masses, contacts and motion do not change.
    """
    scene = mujoco.MjSpec.from_file(str(SCENE))
    for part in ("headlight", "quality", "map", "rgba"):
        source, target = getattr(scene.visual, part), getattr(spec.visual, part)
        for field in dir(source):
            if not field.startswith("_"):
                setattr(target, field, getattr(source, field))
    for texture in spec.textures:
        if int(texture.type) == int(mujoco.mjtTexture.mjTEXTURE_SKYBOX):
            spec.delete(texture)
    for light in spec.lights:
        spec.delete(light)
    spec.attach(scene, frame=spec.worldbody.add_frame(), prefix="scene/")
    spec.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[-1.2, -2.6, 4],
        dir=[0.28, 0.55, -1],
        diffuse=[0.62, 0.60, 0.56],
        specular=[0.3, 0.3, 0.3],
    )
    for geom in spec.geoms:
        material = materials.get(geom.name) or materials.get(geom.parent.name) or default
        geom.material = f"scene/{material}"
        geom.rgba = _UNCOLOURED
