"""The bodies of a compiled MuJoCo model as a scene in a web browser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

if TYPE_CHECKING:
    import viser

SKY, HAZE = (0.80, 0.86, 0.93), (0.97, 0.97, 0.97)
FLOOR, LINES, SECTIONS = (0.86, 0.88, 0.90), (0.80, 0.82, 0.85), (0.70, 0.73, 0.77)
SUN, FILL = 2.0, 0.25

_GEOM = mujoco.mjtGeom
_UNCOLOURED = (0.5, 0.5, 0.5, 1.0)  # MuJoCo's default; with it a geom shows its material


def build(
    scene: viser.SceneApi, model: mujoco.MjModel, data: mujoco.MjData, *, distance: float
) -> list[tuple[int, str]]:
    """Add sky, light, floor and bodies; returns body id and frame name of each body that can move.

    `distance` is the camera's distance in m; the floor fades out at six times that. The frame
    "/world" has to exist.
    """
    sky = 255 * np.linspace(SKY, HAZE, 64)[:, None]
    scene.set_background_image(np.repeat(sky.astype(np.uint8), 2, axis=1), format="png")
    scene.configure_default_lights(enabled=False)
    scene.configure_environment_map("studio", environment_intensity=FILL)
    scene.add_light_directional(
        "/sun", intensity=SUN, color=(255, 250, 240), cast_shadow=True, position=(-1.2, -2.6, 4)
    )
    moving: list[tuple[int, str]] = []
    section = 10.0 ** np.floor(np.log10(model.stat.extent))
    visible = [i for i in range(model.ngeom) if _colour(model, i)[3] and _shown(model, i)]
    for body in sorted({int(model.geom_bodyid[i]) for i in visible}):
        name = f"/world/{body} {model.body(body).name.replace('/', '-')}"
        pose = {"position": data.xpos[body], "wxyz": data.xquat[body]}
        scene.add_frame(name, show_axes=False, **pose)
        if model.body_weldid[body]:
            moving.append((body, name))
        for i in visible:
            if model.geom_bodyid[i] == body:
                _add_geom(scene, f"{name}/{i}", model, i, section, distance)
    if not any(int(model.geom_type[i]) == int(_GEOM.mjGEOM_PLANE) for i in visible):
        lowest = min((data.geom_xpos[i, 2] - model.geom_rbound[i] for i in visible), default=0)
        _add_floor(scene, "/world/floor", FLOOR, section, distance, position=(0.0, 0.0, lowest))
    return moving


def _shown(model: mujoco.MjModel, geom: int) -> bool:
    """Whether MuJoCo's viewers show a geom; they hide groups 3 to 5, mostly collision geoms."""
    return int(model.geom_group[geom]) < 3


def _colour(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """(4,) RGBA: the geom's own colour, or its material's if it has none, as in MuJoCo."""
    rgba, material = model.geom_rgba[geom], int(model.geom_matid[geom])
    if material >= 0 and tuple(rgba) == _UNCOLOURED:
        return model.mat_rgba[material]
    return rgba


def _add_geom(
    scene: viser.SceneApi,
    name: str,
    model: mujoco.MjModel,
    geom: int,
    section: float,
    distance: float,
) -> None:
    """Add a geom in its body's frame."""
    import trimesh

    kind, (x, y, z) = int(model.geom_type[geom]), model.geom_size[geom]
    red, green, blue, alpha = map(float, _colour(model, geom))
    rgb = red, green, blue
    looks: Any = {
        "color": rgb,
        "opacity": alpha if alpha < 1 else None,
        "cast_shadow": alpha == 1,
        "position": model.geom_pos[geom],
        "wxyz": model.geom_quat[geom],
    }
    if kind == int(_GEOM.mjGEOM_PLANE):
        # Most planes are textured; grid lines replace the texture.
        material = int(model.geom_matid[geom])
        textured = material >= 0 and (model.mat_texid[material] >= 0).any()
        size = (2 * x, 2 * y) if 0 < x < 3 * model.stat.extent else None
        _add_floor(
            scene,
            name,
            FLOOR if textured else rgb,
            section,
            distance,
            size=size,
            position=model.geom_pos[geom],
            wxyz=model.geom_quat[geom],
        )
    elif kind in (int(_GEOM.mjGEOM_SPHERE), int(_GEOM.mjGEOM_ELLIPSOID)):
        scale = (x, x, x) if kind == int(_GEOM.mjGEOM_SPHERE) else (x, y, z)
        scene.add_icosphere(name, 1.0, subdivisions=4, scale=scale, **looks)
    elif kind == int(_GEOM.mjGEOM_CAPSULE):
        capsule = trimesh.creation.capsule(2 * y, x, count=(16, 28))
        vertices = capsule.vertices - capsule.bounds.mean(axis=0)
        scene.add_mesh_simple(name, vertices, capsule.faces, **looks)
    elif kind == int(_GEOM.mjGEOM_CYLINDER):
        scene.add_cylinder(name, x, 2 * y, radial_segments=40, **looks)
    elif kind == int(_GEOM.mjGEOM_BOX):
        scene.add_box(name, dimensions=(2 * x, 2 * y, 2 * z), **looks)
    elif kind == int(_GEOM.mjGEOM_HFIELD):
        vertices, faces = _terrain(model, int(model.geom_dataid[geom]))
        scene.add_mesh_simple(name, vertices, faces, **looks)
    elif kind == int(_GEOM.mjGEOM_MESH):
        mesh = int(model.geom_dataid[geom])
        vertices = model.mesh_vert[model.mesh_vertadr[mesh] :][: model.mesh_vertnum[mesh]]
        faces = model.mesh_face[model.mesh_faceadr[mesh] :][: model.mesh_facenum[mesh]]
        scene.add_mesh_simple(name, vertices, faces, flat_shading=True, **looks)


def _terrain(model: mujoco.MjModel, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of a height field, with every other row and column."""
    rows, columns = int(model.hfield_nrow[index]), int(model.hfield_ncol[index])
    start = model.hfield_adr[index]
    heights = model.hfield_data[start : start + rows * columns].reshape(rows, columns)[::2, ::2]
    half_x, half_y, top, _ = model.hfield_size[index]
    sides = (np.linspace(-half, half, n)[::2] for half, n in ((half_x, columns), (half_y, rows)))
    x, y = np.meshgrid(*sides)
    corner = np.arange(x.size).reshape(x.shape)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    triangles = np.stack([np.stack([a, b, d], -1), np.stack([a, d, c], -1)])
    return np.stack([x, y, top * heights], -1).reshape(-1, 3), triangles.reshape(-1, 3)


def _add_floor(
    scene: viser.SceneApi,
    name: str,
    colour: tuple[float, float, float],
    section: float,
    distance: float,
    *,
    size: tuple[float, float] | None = None,
    **pose: Any,
) -> None:
    """Add a plane with lines every `section` m; without a size it is infinite and fades out."""
    width, height = size or (1.0, 1.0)
    scene.add_grid(
        name,
        width,
        height,
        infinite_grid=size is None,
        cell_size=section / 2,
        section_size=section,
        cell_color=LINES,
        section_color=SECTIONS,
        plane_color=colour,
        plane_opacity=1.0,
        shadow_opacity=0.35,
        fade_distance=6 * distance,
        **pose,
    )
