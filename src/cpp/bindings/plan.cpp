// Plans and packed weights: array to view, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "algorithms/algorithm.hpp"
#include "algorithms/fused.hpp"
#include "bindings/gil.hpp"
#include "bindings/names.hpp"
#include "bindings/register.hpp"
#include "core/float_state.hpp"
#include "core/parallel.hpp"
#include "core/workspace.hpp"

namespace py = pybind11;

namespace pyconv {
namespace {

using AxisTuple =
    std::tuple<std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;

struct PackedWeights {
  std::string packing;
  std::size_t bytes;
  AlignedBuffer data;
};

py::dtype numpy_dtype(DataType dtype) {
  return dtype == DataType::float64 ? py::dtype::of<double>() : py::dtype::of<float>();
}

std::unique_ptr<Plan> new_plan(const std::string& dtype, bool channels_last, std::int64_t batch,
                               const std::vector<AxisTuple>& axes,
                               const std::vector<std::pair<std::int64_t, std::int64_t>>& groups,
                               const std::string& padding_mode,
                               const std::tuple<std::string, double, double>& activation,
                               const std::string& algorithm) {
  ConvProblem problem;
  problem.dtype = dtype_from_name(dtype);
  problem.channels_last = channels_last;
  problem.spatial_rank = static_cast<int>(axes.size());
  problem.batch = batch;
  problem.in_channels = problem.out_channels = 0;
  for (const auto& [in, out] : groups) {
    problem.groups.push_back({problem.in_channels, in, problem.out_channels, out});
    problem.in_channels += in;
    problem.out_channels += out;
  }
  std::size_t to = kSpatialAxes - axes.size();
  for (const auto& [in, out, kernel, stride, dilation, pad_before] : axes) {
    problem.axes[to++] = {in, out, kernel, stride, dilation, pad_before};
  }
  problem.prefer_height();
  problem.padding_mode = padding_mode_from_name(padding_mode);
  problem.activation = {activation_from_name(std::get<0>(activation)), std::get<1>(activation),
                        std::get<2>(activation)};
  return make_plan(std::move(problem), algorithm);
}

// Stride in elements. That of an axis of length 1 has no meaning, and NumPy lets it be anything:
// the core may step beyond the end, where nothing is read, and the address must not overflow.
std::int64_t stride_of(const py::array& array, py::ssize_t axis, py::ssize_t size) {
  constexpr py::ssize_t kMost = py::ssize_t(1) << 47;  // bytes: what an address space holds
  const py::ssize_t bytes = array.strides(axis);
  return -kMost < bytes && bytes < kMost ? bytes / size : 0;
}

// Calls visit(axis of the problem, axis of the arrays among their spatial ones).
template <class Visit>
void for_each_axis(const ConvProblem& problem, const Visit& visit) {
  for (std::size_t axis = 0; axis < kSpatialAxes; ++axis) {
    const int in_array = problem.array_axes[axis] - (kSpatialAxes - problem.spatial_rank);
    if (in_array >= 0) visit(axis, in_array);
  }
}

// Strides in elements of an array (batch, channel, spatial axes) in the problem's data format. The
// batch axis may be absent.
Strides strides_of(const py::array& array, const ConvProblem& problem) {
  const py::ssize_t size = element_bytes(problem.dtype);
  const py::ssize_t rank = problem.spatial_rank;
  const py::ssize_t lead = array.ndim() - rank - 1;  // 1 with a batch axis, 0 without
  Strides strides;
  strides.batch = lead > 0 ? stride_of(array, 0, size) : 0;
  strides.channel = stride_of(array, problem.channels_last ? lead + rank : lead, size);
  const py::ssize_t first_axis = problem.channels_last ? lead : lead + 1;
  for_each_axis(problem, [&](std::size_t axis, int in_array) {
    strides.axis[axis] = stride_of(array, first_axis + in_array, size);
  });
  return strides;
}

std::vector<py::ssize_t> output_shape(const ConvProblem& problem, bool batched) {
  std::vector<py::ssize_t> shape;
  shape.reserve(kSpatialAxes + 2);
  if (batched) shape.push_back(problem.batch);
  if (!problem.channels_last) shape.push_back(problem.out_channels);
  const std::size_t first = shape.size();
  shape.resize(first + static_cast<std::size_t>(problem.spatial_rank));
  for_each_axis(problem, [&](std::size_t axis, int in_array) {
    shape[first + static_cast<std::size_t>(in_array)] = problem.axes[axis].out;
  });
  if (problem.channels_last) shape.push_back(problem.out_channels);
  return shape;
}

py::array new_output(const ConvProblem& problem, bool batched) {
  const std::vector<py::ssize_t> shape = output_shape(problem, batched);
  py::ssize_t bytes = element_bytes(problem.dtype);
  for (const py::ssize_t extent : shape) bytes *= extent;
  AlignedBuffer buffer = make_aligned(static_cast<std::size_t>(bytes));
  const py::capsule owner(buffer.get(), [](void* memory) { free_aligned(memory); });
  return py::array(numpy_dtype(problem.dtype), shape, buffer.release(), owner);
}

// One view per group of weights that are one array, or one per group.
std::vector<WeightView> weight_views(const ConvProblem& problem,
                                     const std::vector<py::array>& weights) {
  if (weights.size() != 1 && weights.size() != problem.groups.size()) {
    throw std::logic_error("weights are one array, or one per group");
  }
  const py::ssize_t size = element_bytes(problem.dtype);
  std::vector<WeightView> views;
  views.reserve(problem.groups.size());
  for (std::size_t g = 0; g < problem.groups.size(); ++g) {
    const py::array& weight = weights[weights.size() == 1 ? 0 : g];
    WeightView view{};
    view.out_stride = weight.strides(0) / size;
    view.in_stride = weight.strides(1) / size;
    for_each_axis(problem, [&](std::size_t axis, int in_array) {
      view.axis_stride[axis] = weight.strides(2 + in_array) / size;
    });
    view.data = static_cast<const std::byte*>(weight.data()) +
                (weights.size() == 1 ? problem.groups[g].out_begin * weight.strides(0) : 0);
    views.push_back(view);
  }
  return views;
}

void pack_into(const Plan& plan, const std::vector<WeightView>& views, void* packed) {
  const FloatState float_state;
  // Without elements, axes may still be so long that a loop over them would not end.
  if (plan.packed_bytes() > 0) plan.pack(views, packed);
}

std::unique_ptr<PackedWeights> pack(const Plan& plan, const std::vector<py::array>& weights) {
  const std::vector<WeightView> views = weight_views(plan.problem(), weights);
  auto packed = std::make_unique<PackedWeights>();
  packed->packing = plan.packing();
  packed->bytes = plan.packed_bytes();
  without_gil([&] {
    packed->data = make_aligned(packed->bytes);
    pack_into(plan, views, packed->data.get());
  });
  return packed;
}

// Lets Python handle the signals that have arrived, which it does on its main thread alone, and
// says whether a handler has raised: KeyboardInterrupt, as a rule. The error stays with this thread
// until `run` holds the GIL again.
bool signal_raises() {
  if (syscall(SYS_gettid) != getpid()) return false;
  const py::gil_scoped_acquire acquire;
  return PyErr_CheckSignals() != 0;
}

// Runs `work` without the GIL, until it is done or a signal handler raises.
template <class Work>
void run_released(const Work& work) {
  try {
    without_gil([&] {
      const Interruptible interruptible(signal_raises);
      work();
    });
  } catch (const Interrupted&) {
    throw py::error_already_set();
  }
}

const void* data_for(const Plan& plan, const PackedWeights& weights) {
  if (weights.bytes != plan.packed_bytes() || weights.packing != plan.packing()) {
    throw std::logic_error("weights were packed for another plan");
  }
  return weights.data.get();
}

void set_residual(ConvArrays& arrays, const ConvProblem& problem,
                  const std::optional<py::array>& residual) {
  if (!residual) return;
  arrays.residual = residual->data();
  arrays.residual_strides = strides_of(*residual, problem);
}

// Calls `compute` without the GIL on arrays that lack weights alone, and returns the output.
template <class Compute>
py::array run_on(const ConvProblem& problem, const py::array& x,
                 const std::optional<py::array>& bias, const std::optional<py::array>& residual,
                 const std::optional<py::array>& out, const Compute& compute) {
  py::array result = out ? *out : new_output(problem, x.ndim() == problem.spatial_rank + 2);
  if (result.size() == 0) return result;
  ConvArrays arrays{};
  arrays.x = x.data();
  arrays.x_strides = strides_of(x, problem);
  arrays.bias = bias ? bias->data() : nullptr;
  set_residual(arrays, problem, residual);
  arrays.out = result.mutable_data();
  arrays.out_strides = strides_of(result, problem);
  run_released([&] { compute(arrays); });
  return result;
}

py::array run(const Plan& plan, const py::array& x, const PackedWeights& weights,
              const std::optional<py::array>& bias, const std::optional<py::array>& residual,
              const std::optional<py::array>& out, int threads) {
  const void* const packed = data_for(plan, weights);
  return run_on(plan.problem(), x, bias, residual, out, [&](ConvArrays& arrays) {
    arrays.packed_weights = packed;
    plan.run(arrays, plan.useful_threads(threads));
  });
}

// The same with weights that are packed for this call, into memory that the thread keeps.
py::array pack_and_run(const Plan& plan, const py::array& x, const std::vector<py::array>& weights,
                       const std::optional<py::array>& bias,
                       const std::optional<py::array>& residual,
                       const std::optional<py::array>& out, int threads) {
  const std::vector<WeightView> views = weight_views(plan.problem(), weights);
  const Workspace packed(plan.packed_bytes());
  return run_on(plan.problem(), x, bias, residual, out, [&](ConvArrays& arrays) {
    pack_into(plan, views, packed.get());
    arrays.packed_weights = packed.get();
    plan.run(arrays, plan.useful_threads(threads));
  });
}

std::unique_ptr<FusedPlan> new_fused_plan(const std::vector<const Plan*>& plans,
                                          const std::string& algorithm) {
  if (plans.empty() || plans.size() > FusedPlan::kMostStages) {
    throw std::logic_error("a fused plan has one to three stages");
  }
  std::vector<ConvProblem> problems;
  problems.reserve(plans.size());
  for (const Plan* plan : plans) problems.push_back(plan->problem());
  return std::make_unique<FusedPlan>(std::move(problems), algorithm);
}

py::list stages(const py::object& self) {
  py::list list;
  for (const auto& stage : self.cast<const FusedPlan&>().stages()) {
    list.append(py::cast(stage.get(), py::return_value_policy::reference_internal, self));
  }
  return list;
}

py::array run_fused(const FusedPlan& plan, const py::array& x,
                    const std::vector<const PackedWeights*>& weights,
                    const std::vector<std::optional<py::array>>& biases,
                    const std::optional<py::array>& residual, const std::optional<py::array>& out,
                    int threads) {
  const auto& stages = plan.stages();
  if (weights.size() != stages.size() || biases.size() != stages.size()) {
    throw std::logic_error("a fused plan needs weights and a bias or None per stage");
  }
  std::vector<ConvArrays> arrays(stages.size());
  for (std::size_t i = 0; i < stages.size(); ++i) {
    arrays[i].packed_weights = data_for(*stages[i], *weights[i]);
    arrays[i].bias = biases[i] ? biases[i]->data() : nullptr;
  }
  const ConvProblem& last = plan.last();
  py::array result = out ? *out : new_output(last, x.ndim() == last.spatial_rank + 2);
  if (result.size() == 0) return result;
  arrays.front().x = x.data();
  arrays.front().x_strides = strides_of(x, plan.first());
  set_residual(arrays.back(), last, residual);
  arrays.back().out = result.mutable_data();
  arrays.back().out_strides = strides_of(result, last);
  run_released([&] { plan.run(arrays, plan.useful_threads(threads)); });
  return result;
}

const char* const kNoTasks = "0 tasks";

std::string partition(const Plan& plan, int threads) {
  return plan.problem().has_outputs() ? plan.partition(threads) : kNoTasks;
}

std::string fused_partition(const FusedPlan& plan, int threads) {
  for (const auto& stage : plan.stages()) {
    if (!stage->problem().has_outputs()) return kNoTasks;
  }
  return plan.first().batch > 0 ? plan.partition(threads) : kNoTasks;
}

template <class AnyPlan>
std::size_t workspace_bytes(const AnyPlan& plan, int threads) {
  return Workspace::occupied(plan.workspace_bytes(threads));
}

}  // namespace

void register_plan(py::module_& module) {
  const py::class_<PackedWeights> packed_weights(module, "PackedWeights");

  py::class_<Plan>(module, "Plan")
      .def(py::init(&new_plan), py::kw_only(), py::arg("dtype"), py::arg("channels_last"),
           py::arg("batch"), py::arg("axes"), py::arg("groups"), py::arg("padding_mode"),
           py::arg("activation"), py::arg("algorithm"))
      .def_property_readonly("algorithm", &Plan::name)
      .def_property_readonly("packing", &Plan::packing)
      .def_property_readonly("packed_bytes", &Plan::packed_bytes)
      .def_property_readonly("tile", &Plan::tile)
      .def_property_readonly("reason", &Plan::reason)
      .def("useful_threads", &Plan::useful_threads, py::arg("limit"))
      .def("partition", &partition, py::arg("threads"))
      .def("workspace_bytes", &workspace_bytes<Plan>, py::arg("threads"))
      .def("pack", &pack, py::arg("weights"))
      .def("run", &run, py::arg("x"), py::arg("weights"), py::arg("bias"), py::arg("residual"),
           py::arg("out"), py::arg("threads"))
      .def("pack_and_run", &pack_and_run, py::arg("x"), py::arg("weights"), py::arg("bias"),
           py::arg("residual"), py::arg("out"), py::arg("threads"));

  py::class_<FusedPlan>(module, "FusedPlan")
      .def(py::init(&new_fused_plan), py::arg("plans"), py::arg("algorithm"))
      .def_property_readonly("algorithm", &FusedPlan::name)
      .def_property_readonly("stages", &stages)
      .def_property_readonly("tile", &FusedPlan::tile)
      .def_property_readonly("reason", &FusedPlan::reason)
      .def("useful_threads", &FusedPlan::useful_threads, py::arg("limit"))
      .def("partition", &fused_partition, py::arg("threads"))
      .def("workspace_bytes", &workspace_bytes<FusedPlan>, py::arg("threads"))
      .def("run", &run_fused, py::arg("x"), py::arg("weights"), py::arg("biases"),
           py::arg("residual"), py::arg("out"), py::arg("threads"));
}

}  // namespace pyconv
