#include "runtime/pickle.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <sstream>
#include <utility>

#include "runtime/torch_archive.h"
#include "status.h"

namespace omni {
namespace {

using Container = PickleContainer;

// The pickle of a dict of a thousand tensors is far below this; a larger one is no such file.
constexpr size_t kMaxPickleBytes = size_t{64} << 20;

// The names that a pickle may refer to; anything else is refused by name.
struct StorageClass {
  const char* name;
  at::ScalarType dtype;
};
constexpr StorageClass kStorageClasses[] = {
    {"torch.FloatStorage", at::kFloat}, {"torch.DoubleStorage", at::kDouble},
    {"torch.HalfStorage", at::kHalf},   {"torch.BFloat16Storage", at::kBFloat16},
    {"torch.LongStorage", at::kLong},   {"torch.IntStorage", at::kInt},
    {"torch.ShortStorage", at::kShort}, {"torch.CharStorage", at::kChar},
    {"torch.ByteStorage", at::kByte},   {"torch.BoolStorage", at::kBool},
};
constexpr const char* kRebuildTensor = "torch._utils._rebuild_tensor_v2";
constexpr const char* kOrderedDict = "collections.OrderedDict";

// What lies on the stack of the pickle machine: a value, or something that exists only while the file is read.
struct Item {
  enum class Kind { kValue, kMark, kGlobal, kStorage };
  Kind kind = Kind::kValue;
  PickleValue value;
  std::string global;              // "module.name"
  at::Tensor storage;              // one-dimensional
  Container* container = nullptr;  // of a value that can still grow
};

// Runs one pickle. Every read and every pop is checked.
class Machine {
 public:
  Machine(TorchArchive& archive, std::string code, std::deque<Container>& containers)
      : archive_(archive), code_(std::move(code)), containers_(containers) {}

  PickleValue run() {
    while (!step(byte())) {
    }
    Item root = pop();
    if (!stack_.empty()) fail("STOP with " + std::to_string(stack_.size()) + " values left on the stack");
    return as_value(root);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(OMNI_INVALID_ARGUMENT,
                archive_.path() + ": data.pkl, offset " + std::to_string(opcode_at_) + ": " + message);
  }

  // ---- the byte stream ----

  const char* take(size_t count) {
    if (count > code_.size() - at_) fail("the pickle ends inside an instruction");
    const char* bytes = code_.data() + at_;
    at_ += count;
    return bytes;
  }
  uint8_t byte() {
    opcode_at_ = at_;
    return static_cast<uint8_t>(*take(1));
  }
  // A little-endian unsigned number of the given width.
  uint64_t number(size_t width) {
    const char* bytes = take(width);
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) value |= uint64_t{static_cast<uint8_t>(bytes[i])} << (8 * i);
    return value;
  }
  std::string text(uint64_t length) {
    if (length > code_.size())
      fail("a string of " + std::to_string(length) + " bytes is longer than the pickle");
    return std::string(take(length), length);
  }
  std::string line() {
    const size_t end = code_.find('\n', at_);
    if (end == std::string::npos) fail("the pickle ends inside a name");
    std::string result = text(end - at_);
    ++at_;
    return result;
  }
  // LONG1: a two's complement number of any width, of which we take up to 8 bytes.
  int64_t long_number() {
    const uint64_t width = number(1);
    if (width > 8) fail("an integer of " + std::to_string(width) + " bytes, expected at most 8");
    uint64_t value = number(width);
    if (width > 0 && width < 8 && (value >> (8 * width - 1)) != 0) value |= ~uint64_t{0} << (8 * width);
    return static_cast<int64_t>(value);
  }
  double big_endian_double() {
    const char* bytes = take(8);
    uint64_t bits = 0;
    for (int i = 0; i < 8; ++i) bits = bits << 8 | static_cast<uint8_t>(bytes[i]);
    double value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  }

  // ---- the stack ----

  void push(PickleValue::Storage value) {
    Item item;
    item.value = PickleValue(std::move(value));
    stack_.push_back(std::move(item));
  }
  void push_container(Container::Kind kind, std::vector<PickleValue> items = {}) {
    containers_.push_back({kind, {}, std::move(items)});
    push(&containers_.back());
    stack_.back().container = &containers_.back();
  }
  void push_global(std::string name) {
    Item item;
    item.kind = Item::Kind::kGlobal;
    item.global = std::move(name);
    stack_.push_back(std::move(item));
  }
  Item pop() {
    if (stack_.empty()) fail("the stack is empty");
    Item item = std::move(stack_.back());
    stack_.pop_back();
    return item;
  }
  PickleValue as_value(const Item& item) const {
    if (item.kind == Item::Kind::kGlobal) fail("expected a value, found the name " + item.global);
    if (item.kind != Item::Kind::kValue) fail("expected a value, found a mark or a storage");
    return item.value;
  }
  PickleValue pop_value() { return as_value(pop()); }
  std::string pop_string() {
    const PickleValue value = pop_value();
    if (value.string() == nullptr) fail("expected a string, found " + value.describe());
    return *value.string();
  }
  // Everything above the topmost mark, which goes too.
  std::vector<Item> pop_to_mark() {
    size_t mark = stack_.size();
    while (mark > 0 && stack_[mark - 1].kind != Item::Kind::kMark) --mark;
    if (mark == 0) fail("no mark on the stack");
    std::vector<Item> items(std::make_move_iterator(stack_.begin() + static_cast<ptrdiff_t>(mark)),
                            std::make_move_iterator(stack_.end()));
    stack_.resize(mark - 1);
    return items;
  }
  // The dict or list on top of the stack.
  Container& top_container(Container::Kind kind, const char* name) {
    if (stack_.empty() || stack_.back().container == nullptr || stack_.back().container->kind != kind) {
      fail(std::string("expected a ") + name + " on the stack");
    }
    return *stack_.back().container;
  }

  // A tuple may hold names and storages (the arguments of torch's functions), so it stays in items until it is used.
  void push_tuple(std::vector<Item> items) {
    tuples_.push_back(std::move(items));
    std::vector<PickleValue> values;
    for (const Item& item : tuples_.back()) {
      if (item.kind == Item::Kind::kValue) values.push_back(item.value);
    }
    push_container(Container::Kind::kTuple, std::move(values));
    tuple_items_[stack_.back().container] = &tuples_.back();
  }
  void push_tuple_of(size_t count) {
    std::vector<Item> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    push_tuple(std::move(items));
  }
  const std::vector<Item>& pop_tuple(const char* of) {
    const Item item = pop();
    const auto found = tuple_items_.find(item.container);
    if (item.container == nullptr || found == tuple_items_.end())
      fail(std::string("expected a tuple of ") + of);
    return *found->second;
  }

  void memoize(uint64_t slot) {
    if (stack_.empty()) fail("nothing on the stack to remember");
    if (stack_.back().kind == Item::Kind::kMark) fail("a mark cannot be remembered");
    memo_[slot] = stack_.back();
  }
  void recall(uint64_t slot) {
    const auto found = memo_.find(slot);
    if (found == memo_.end()) fail("nothing was remembered under " + std::to_string(slot));
    stack_.push_back(found->second);
  }

  // ---- what torch.save needs beyond plain values ----

  at::ScalarType storage_dtype(const Item& item) {
    for (const StorageClass& known : kStorageClasses) {
      if (item.kind == Item::Kind::kGlobal && item.global == known.name) return known.dtype;
    }
    fail("expected a storage class, found " +
         (item.kind == Item::Kind::kGlobal ? item.global : "another kind of value"));
  }

  const std::string& string_of(const Item& item, const char* what) {
    const std::string* value = item.kind == Item::Kind::kValue ? item.value.string() : nullptr;
    if (value == nullptr) fail(std::string("expected a string as ") + what);
    return *value;
  }
  int64_t size_of(const Item& item, const char* what) {
    const int64_t* value = item.kind == Item::Kind::kValue ? item.value.integer() : nullptr;
    if (value == nullptr || *value < 0) fail(std::string("expected a number >= 0 as ") + what);
    return *value;
  }
  std::vector<int64_t> sizes_of(const Item& item, const char* what) {
    const auto found = tuple_items_.find(item.container);
    if (item.container == nullptr || found == tuple_items_.end())
      fail(std::string("expected a tuple as ") + what);
    std::vector<int64_t> sizes;
    for (const Item& size : *found->second) sizes.push_back(size_of(size, what));
    return sizes;
  }

  // BINPERSID: ("storage", class, key, device, elements) names the record data/<key>.
  void push_storage() {
    const std::vector<Item>& id = pop_tuple("a storage");
    if (id.size() != 5 || string_of(id[0], "kind of reference") != "storage")
      fail("expected a reference to a storage");
    const at::ScalarType dtype = storage_dtype(id[1]);
    const std::string& key = string_of(id[2], "key of a storage");
    const int64_t elements = size_of(id[4], "size of a storage");
    Item item;
    item.kind = Item::Kind::kStorage;
    item.storage = load_storage(key, dtype, elements);
    stack_.push_back(std::move(item));
  }
  at::Tensor load_storage(const std::string& key, at::ScalarType dtype, int64_t elements) {
    const auto found = storages_.find(key);
    if (found != storages_.end()) {
      if (found->second.scalar_type() != dtype || found->second.numel() != elements) {
        fail("storage " + key + " is described in two ways");
      }
      return found->second;
    }
    const std::string record = "data/" + key;
    const size_t bytes = archive_.size(record);
    const size_t width = c10::elementSize(dtype);
    if (bytes % width != 0 || bytes / width != static_cast<uint64_t>(elements)) {
      fail("record " + record + " has " + std::to_string(bytes) + " bytes, expected " +
           std::to_string(elements) + " x " + std::to_string(width));
    }
    at::Tensor storage = at::empty({elements}, at::TensorOptions().dtype(dtype));
    archive_.read(record, storage.data_ptr(), bytes);
    storages_[key] = storage;
    return storage;
  }

  // REDUCE: function(arguments).
  void call() {
    const std::vector<Item> arguments = pop_tuple("arguments");
    const Item function = pop();
    if (function.kind != Item::Kind::kGlobal) fail("expected a function");
    if (function.global == kOrderedDict && arguments.empty()) {
      push_container(Container::Kind::kDict);
    } else if (function.global == kRebuildTensor) {
      push_tensor(arguments);
    } else {
      fail("the function " + function.global + " is not allowed here");
    }
  }
  // (storage, offset, sizes, strides, requires_grad, hooks).
  void push_tensor(const std::vector<Item>& arguments) {
    if (arguments.size() < 6 || arguments[0].kind != Item::Kind::kStorage)
      fail("expected the parts of a tensor");
    const at::Tensor& storage = arguments[0].storage;
    const int64_t offset = size_of(arguments[1], "offset of a tensor");
    const std::vector<int64_t> sizes = sizes_of(arguments[2], "shape of a tensor");
    const std::vector<int64_t> strides = sizes_of(arguments[3], "strides of a tensor");
    if (sizes.size() != strides.size()) fail("a tensor's shape and strides differ in length");
    const bool empty = std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
    // 1 + the index of the last element, in 128 bits so that no product overflows; given up when it is too large.
    __int128 end = static_cast<__int128>(offset) + (empty ? 0 : 1);
    __int128 elements = empty ? 0 : 1;
    for (size_t i = 0; !empty && i < sizes.size() && elements <= storage.numel() && end <= storage.numel();
         ++i) {
      end += static_cast<__int128>(sizes[i] - 1) * strides[i];
      elements *= sizes[i];
    }
    if (elements > storage.numel() || end > storage.numel()) {
      fail("a tensor reaches beyond its storage of " + std::to_string(storage.numel()) + " elements");
    }
    push(storage.as_strided(sizes, strides, offset).contiguous());
  }

  void set_items(Container& dict, const std::vector<Item>& items) {
    if (items.size() % 2 != 0) fail("a key without a value");
    for (size_t i = 0; i < items.size(); i += 2)
      dict.entries.emplace_back(as_value(items[i]), as_value(items[i + 1]));
  }

  // One instruction; true after STOP.
  bool step(uint8_t opcode) {
    if (step_numbers(opcode) || step_containers(opcode)) return false;
    switch (opcode) {
      case 0x80:  // PROTO
        if (const uint64_t version = number(1); version < 2 || version > 5) {
          fail("pickle protocol " + std::to_string(version) + ", expected 2 to 5");
        }
        return false;
      case 0x95:  // FRAME: the length of what follows, of use to buffered readers only
        number(8);
        return false;
      case 'q':  // BINPUT
        memoize(number(1));
        return false;
      case 'r':  // LONG_BINPUT
        memoize(number(4));
        return false;
      case 0x94:  // MEMOIZE
        memoize(memo_.size());
        return false;
      case 'h':  // BINGET
        recall(number(1));
        return false;
      case 'j':  // LONG_BINGET
        recall(number(4));
        return false;
      case 'c': {  // GLOBAL
        const std::string module = line();
        push_global(module + "." + line());
        return false;
      }
      case 0x93: {  // STACK_GLOBAL
        const std::string name = pop_string();
        push_global(pop_string() + "." + name);
        return false;
      }
      case 'Q':  // BINPERSID
        push_storage();
        return false;
      case 'R':  // REDUCE
        call();
        return false;
      case '.':  // STOP
        return true;
      default: {
        std::ostringstream hex;
        hex << std::hex << int{opcode};
        fail("instruction 0x" + hex.str() + " is not allowed here");
      }
    }
  }

  bool step_numbers(uint8_t opcode) {
    switch (opcode) {
      case 'N':
        push(std::monostate{});
        return true;  // NONE
      case 0x88:
        push(true);
        return true;  // NEWTRUE
      case 0x89:
        push(false);
        return true;  // NEWFALSE
      case 'K':
        push(static_cast<int64_t>(number(1)));
        return true;  // BININT1
      case 'M':
        push(static_cast<int64_t>(number(2)));
        return true;  // BININT2
      case 'J':
        push(int64_t{static_cast<int32_t>(number(4))});
        return true;  // BININT
      case 0x8a:
        push(long_number());
        return true;  // LONG1
      case 'G':
        push(big_endian_double());
        return true;  // BINFLOAT
      case 0x8c:
        push(text(number(1)));
        return true;  // SHORT_BINUNICODE
      case 'X':
        push(text(number(4)));
        return true;  // BINUNICODE
      default:
        return false;
    }
  }

  bool step_containers(uint8_t opcode) {
    switch (opcode) {
      case '(': {  // MARK
        Item mark;
        mark.kind = Item::Kind::kMark;
        stack_.push_back(std::move(mark));
        return true;
      }
      case '}':
        push_container(Container::Kind::kDict);
        return true;  // EMPTY_DICT
      case ']':
        push_container(Container::Kind::kList);
        return true;  // EMPTY_LIST
      case ')':
        push_tuple({});
        return true;  // EMPTY_TUPLE
      case 0x85:
        push_tuple_of(1);
        return true;  // TUPLE1
      case 0x86:
        push_tuple_of(2);
        return true;  // TUPLE2
      case 0x87:
        push_tuple_of(3);
        return true;  // TUPLE3
      case 't':
        push_tuple(pop_to_mark());
        return true;  // TUPLE
      case 's': {     // SETITEM
        std::vector<Item> items(2);
        items[1] = pop();
        items[0] = pop();
        set_items(top_container(Container::Kind::kDict, "dict"), items);
        return true;
      }
      case 'u': {  // SETITEMS
        const std::vector<Item> items = pop_to_mark();
        set_items(top_container(Container::Kind::kDict, "dict"), items);
        return true;
      }
      case 'a': {  // APPEND
        PickleValue value = pop_value();
        top_container(Container::Kind::kList, "list").items.push_back(std::move(value));
        return true;
      }
      case 'e': {  // APPENDS
        const std::vector<Item> items = pop_to_mark();
        Container& list = top_container(Container::Kind::kList, "list");
        for (const Item& item : items) list.items.push_back(as_value(item));
        return true;
      }
      default:
        return false;
    }
  }

  TorchArchive& archive_;
  std::string code_;
  std::deque<Container>& containers_;
  size_t at_ = 0;
  size_t opcode_at_ = 0;
  std::vector<Item> stack_;
  std::map<uint64_t, Item> memo_;
  std::map<std::string, at::Tensor> storages_;  // by key
  std::deque<std::vector<Item>> tuples_;
  std::map<const Container*, const std::vector<Item>*> tuple_items_;
};

}  // namespace

const std::vector<std::pair<PickleValue, PickleValue>>* PickleValue::dict() const {
  const auto* container = std::get_if<const PickleContainer*>(&value_);
  return container != nullptr && (*container)->kind == Container::Kind::kDict ? &(*container)->entries
                                                                              : nullptr;
}

const std::vector<PickleValue>* PickleValue::items() const {
  const auto* container = std::get_if<const PickleContainer*>(&value_);
  return container != nullptr && (*container)->kind != Container::Kind::kDict ? &(*container)->items
                                                                              : nullptr;
}

const PickleValue* PickleValue::find(std::string_view key) const {
  const auto* entries = dict();
  if (entries == nullptr) return nullptr;
  for (const auto& [name, value] : *entries) {
    if (name.string() != nullptr && *name.string() == key) return &value;
  }
  return nullptr;
}

std::string PickleValue::describe() const {
  std::ostringstream out;
  if (boolean() != nullptr) {
    out << (*boolean() ? "True" : "False");
  } else if (integer() != nullptr) {
    out << *integer();
  } else if (number() != nullptr) {
    out << *number();
  } else if (string() != nullptr) {
    out << '"' << string()->substr(0, 64) << '"';
  } else if (tensor() != nullptr) {
    out << "a " << c10::toString(tensor()->scalar_type()) << " tensor " << tensor()->sizes();
  } else if (dict() != nullptr) {
    out << "a dict of " << dict()->size();
  } else if (items() != nullptr) {
    out << "a list or tuple of " << items()->size();
  } else {
    out << "None";
  }
  return out.str();
}

PickleFile::PickleFile(const std::string& path) : path_(path) {
  TorchArchive archive(path);
  root_ = Machine(archive, archive.text("data.pkl", kMaxPickleBytes), containers_).run();
}

}  // namespace omni
