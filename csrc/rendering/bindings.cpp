#include "bindings.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "render.h"

namespace py = pybind11;

namespace jaa_ext::rendering {

namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Integers = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

std::vector<float> floats(const py::dict& arrays, const char* name) {
  const auto array = arrays[name].cast<Floats>();
  return {array.data(), array.data() + array.size()};
}

std::vector<Vec3> points(const py::dict& arrays, const char* name) {
  const std::vector<float> values = floats(arrays, name);
  std::vector<Vec3> out(values.size() / 3);
  for (size_t i = 0; i < out.size(); i++) out[i] = {values[3 * i], values[3 * i + 1], values[3 * i + 2]};
  return out;
}

std::vector<Triangle> corners(const py::dict& arrays, const char* name, size_t vertices) {
  const auto array = arrays[name].cast<Integers>();
  std::vector<Triangle> out(array.size() / 3);
  for (size_t i = 0; i < out.size(); i++) {
    out[i] = {array.data()[3 * i], array.data()[3 * i + 1], array.data()[3 * i + 2]};
    for (const int32_t corner : {out[i].a, out[i].b, out[i].c}) {
      if (corner < 0 || corner >= static_cast<int32_t>(vertices)) {
        throw std::invalid_argument(std::string("Head: ") + name + " must index the " + std::to_string(vertices) +
                                    " vertices, got " + std::to_string(corner));
      }
    }
  }
  return out;
}

// Splits an array (names, ...) into an array of floats for each name.
std::map<std::string, std::vector<float>> by_name(const py::dict& arrays, const char* values, const char* names) {
  const std::vector<float> all = floats(arrays, values);
  const auto keys = arrays[names].cast<std::vector<std::string>>();
  std::map<std::string, std::vector<float>> out;
  const size_t each = all.size() / keys.size();
  for (size_t i = 0; i < keys.size(); i++) out[keys[i]] = {all.begin() + i * each, all.begin() + (i + 1) * each};
  return out;
}

std::map<std::string, FrontMap> maps(const py::dict& arrays, const char* values, const char* names) {
  std::map<std::string, FrontMap> out;
  for (auto& [name, map] : by_name(arrays, values, names)) {
    out[name] = {static_cast<int>(std::sqrt(static_cast<float>(map.size())) + 0.5f), std::move(map)};
  }
  return out;
}

Material material(const std::string& part) {
  if (part == "skin") return Material::skin;
  if (part == "right_eye" || part == "left_eye") return Material::eye;
  if (part == "upper_teeth" || part == "lower_teeth") return Material::teeth;
  if (part == "tongue") return Material::tongue;
  if (part == "lashes") return Material::lashes;
  throw std::invalid_argument("Head: no part of a head: \"" + part + '"');
}

Head make_head(const py::dict& arrays) {
  HeadData data;
  data.vertices = points(arrays, "vertices");
  data.identity = floats(arrays, "identity");
  data.actions = floats(arrays, "actions");
  const size_t values = 3 * data.vertices.size();
  if (values == 0 || data.identity.size() % values || data.actions.size() % values) {
    throw std::invalid_argument("Head: identity and actions must have the shape of vertices behind their first axis");
  }
  data.triangles = corners(arrays, "triangles", data.vertices.size());
  const auto parts = arrays["part"].cast<Integers>();
  const auto names = arrays["part_names"].cast<std::vector<std::string>>();
  if (static_cast<size_t>(parts.size()) != data.triangles.size()) {
    throw std::invalid_argument("Head: part must have a number for each triangle");
  }
  for (py::ssize_t i = 0; i < parts.size(); i++) data.materials.push_back(material(names.at(parts.data()[i])));
  data.masks = by_name(arrays, "masks", "mask_names");
  data.landmark_corners = corners(arrays, "landmark_vertices", data.vertices.size());
  data.landmark_weights = points(arrays, "landmark_weights");
  const std::vector<float> eyes = floats(arrays, "eyes");
  data.eye_centres = {{eyes.at(0), eyes.at(1), eyes.at(2)}, {eyes.at(4), eyes.at(5), eyes.at(6)}};
  data.eye_radius = eyes.at(3);
  data.reliefs = maps(arrays, "relief", "relief_names");
  data.paints = maps(arrays, "paint", "paint_names");
  for (const auto& [name, mask] : data.masks) {
    if (mask.size() != data.vertices.size())
      throw std::invalid_argument("Head: masks must have a value for each vertex");
  }
  return Head(std::move(data));
}

py::array_t<float> landmarks(const PosedHead& posed) {
  const auto count = static_cast<py::ssize_t>(posed.landmarks.size() / 2);
  return py::array_t<float>({count, py::ssize_t{2}}, posed.landmarks.data());
}

py::array_t<uint8_t> render_array(const Head& head, const PosedHead& posed, const Scene& scene) {
  if (scene.size < 16 || scene.size > 4096 || scene.samples < 1 || scene.samples > 8) {
    throw std::invalid_argument("render: wanted a size in 16..4096 and samples in 1..8");
  }
  if (posed.positions.size() != head.vertices.size()) throw std::invalid_argument("render: posed by another head");
  std::vector<uint8_t> levels;
  {
    const py::gil_scoped_release release;
    levels = render(head, posed, scene);
  }
  return py::array_t<uint8_t>({scene.size, scene.size, 3}, levels.data());
}

using Three = std::array<float, 3>;

Three three(Vec3 v) { return {v.x, v.y, v.z}; }
Vec3 vec3(Three v) { return {v[0], v[1], v[2]}; }

// A field that is a Vec3 in C++ and three numbers in Python.
template <class Class>
void vector_field(py::class_<Class>& c, const char* name, Vec3 Class::* field) {
  c.def_property(
      name, [field](const Class& self) { return three(self.*field); },
      [field](Class& self, Three v) { self.*field = vec3(v); });
}

}  // namespace

void bind(py::module_& m) {
  py::class_<Head>(m, "Head", "The head of rendered faces, of the arrays of its file.").def(py::init(&make_head));
  py::class_<PosedHead>(m, "PosedHead", "A head with a shape, an expression and a direction.")
      .def_property_readonly("landmarks", &landmarks, "(49, 2) projected, millimetres at the head's distance.");
  m.def("pose", &pose, py::arg("head"), py::arg("identity"), py::arg("actions"), py::arg("rotation"),
        py::arg("distance"), "The head with weights of identity and actions, turned, in front of a camera.");
  m.def("render", &render_array, py::arg("head"), py::arg("posed"), py::arg("scene"),
        "A picture (size, size, 3) of uint8 RGB.");

  py::class_<Rod> rod(m, "Rod", "A rod with round ends that turns with the head.");
  rod.def(py::init<>())
      .def_readwrite("from_radius", &Rod::from_radius)
      .def_readwrite("to_radius", &Rod::to_radius)
      .def_readwrite("is_skin", &Rod::is_skin);
  vector_field(rod, "start", &Rod::from);
  vector_field(rod, "end", &Rod::to);
  vector_field(rod, "colour", &Rod::colour);

  py::class_<Light> light(m, "Light", "A far light.");
  light.def(py::init<>());
  vector_field(light, "direction", &Light::direction);
  vector_field(light, "colour", &Light::colour);

  py::class_<Scene> scene(m, "Scene",
                          "What a picture of a head shows besides its shape; see csrc/rendering/scene.h.");
  scene.def(py::init<>());
#define FIELD(name) scene.def_readwrite(#name, &Scene::name)
  FIELD(seed), FIELD(size), FIELD(samples), FIELD(matrix);
  FIELD(redness), FIELD(freckles), FIELD(blotches), FIELD(pores), FIELD(gloss), FIELD(under_eye), FIELD(wrinkles);
  FIELD(lip_colour), FIELD(lid_colour);
  FIELD(brow_density), FIELD(brow_thickness), FIELD(brow_shift), FIELD(brow_arch), FIELD(brow_gap), FIELD(lashes);
  FIELD(beard_density), FIELD(moustache_density), FIELD(pupil), FIELD(mouth_open);
  FIELD(hair_length), FIELD(hairline), FIELD(curl), FIELD(long_hair), FIELD(curtain_bottom), FIELD(curtain_top);
  FIELD(curtain_opening), FIELD(curtain_volume), FIELD(curtain_taper), FIELD(curtain_is_cloth);
  FIELD(neckline), FIELD(stripes), FIELD(glasses), FIELD(rim_width), FIELD(rim_height), FIELD(rim_power);
  FIELD(rim_radius), FIELD(lens_opacity), FIELD(hat), FIELD(hat_line), FIELD(hat_tilt), FIELD(hat_thickness),
      FIELD(brim);
  FIELD(rods), FIELD(lights), FIELD(shadow_softness);
  FIELD(background_shapes), FIELD(background_clouds), FIELD(background_blur);
  FIELD(exposure), FIELD(contrast), FIELD(saturation), FIELD(blur), FIELD(noise), FIELD(jpeg_quality);
#undef FIELD
#define VECTOR(name) vector_field(scene, #name, &Scene::name)
  VECTOR(skin), VECTOR(lips), VECTOR(lids), VECTOR(brow), VECTOR(beard), VECTOR(iris), VECTOR(sclera), VECTOR(teeth);
  VECTOR(gaze), VECTOR(hair), VECTOR(cloth), VECTOR(rim), VECTOR(lens), VECTOR(hat_colour), VECTOR(sky),
      VECTOR(ground);
  VECTOR(side), VECTOR(white);
#undef VECTOR
  using Two = std::array<Three, 2>;
  scene.def_property(
      "background", [](const Scene& s) { return Two{three(s.background[0]), three(s.background[1])}; },
      [](Scene& s, Two v) { s.background = {vec3(v[0]), vec3(v[1])}; });
}

}  // namespace jaa_ext::rendering
