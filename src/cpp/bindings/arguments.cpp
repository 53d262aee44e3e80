// Questions about arguments that Python code would take a microsecond to answer.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "bindings/register.hpp"

namespace py = pybind11;

namespace pyconv {
namespace {

// Whether a value is an int, a str, None or a tuple of such values, and of no subtype: among them
// those that are equal mean the same. More nesting than arguments have is not looked at.
bool is_plain(py::handle value, int nesting) {
  PyObject* const object = value.ptr();
  if (!PyTuple_CheckExact(object)) {
    return PyLong_CheckExact(object) || PyUnicode_CheckExact(object) || object == Py_None;
  }
  if (nesting == 0) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) {
    if (!is_plain(PyTuple_GET_ITEM(object, i), nesting - 1)) return false;
  }
  return true;
}

// The dtype of an aligned array of NumPy's own class, where the core computes in it; else '\0'.
char plain_float(py::handle value) {
  const auto& numpy = py::detail::npy_api::get();
  if (Py_TYPE(value.ptr()) != numpy.PyArray_Type_) return '\0';
  const auto array = py::reinterpret_borrow<py::array>(value);
  if ((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0) return '\0';
  const py::dtype dtype = array.dtype();
  const char kind = dtype.char_();
  return (kind == 'f' || kind == 'd') && dtype.byteorder() == '=' ? kind : '\0';
}

bool same_floats(py::handle first, py::handle second) {
  const char dtype = plain_float(first);
  return dtype != '\0' && dtype == plain_float(second);
}

// The addresses that an array reaches.
struct Extent {
  std::uintptr_t begin;
  std::uintptr_t end;

  explicit Extent(const py::array& array)
      : begin(reinterpret_cast<std::uintptr_t>(array.data())), end(begin) {
    if (array.size() == 0) return;
    end += static_cast<std::uintptr_t>(array.itemsize());
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
      const py::ssize_t stride = array.strides(axis);
      // Of one element, the stride has no meaning.
      const std::uintptr_t reach =
          static_cast<std::uintptr_t>(stride) * static_cast<std::uintptr_t>(array.shape(axis) - 1);
      (stride < 0 ? begin : end) += reach;
    }
  }
};

bool may_overlap(const py::array& array, const py::iterable& others) {
  const Extent written(array);
  for (const py::handle other : others) {
    if (other.is_none()) continue;
    const Extent read(py::reinterpret_borrow<py::array>(other));
    if (read.begin < written.end && written.begin < read.end) return true;
  }
  return false;
}

}  // namespace

void register_arguments(py::module_& module) {
  module.def("is_plain", [](py::handle value) { return is_plain(value, 4); }, py::arg("value"));
  module.def("same_floats", &same_floats, py::arg("first"), py::arg("second"));
  module.def("may_overlap", &may_overlap, py::arg("array"), py::arg("others"));
}

}  // namespace pyconv
