// example MODEL.qpk: samples from standard input (bytes, channels first, inputs one behind the other), outputs to standard
// output, a line a sample.
#include <qxr.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

// What the runtime reads and writes lies at multiples of 64 bytes.
class Memory {
public:
    explicit Memory(std::size_t bytes) : bytes_(std::max<std::size_t>((bytes + 63) / 64 * 64, 64))
    {
        start_.reset(std::aligned_alloc(64, bytes_));
        if (!start_)
            throw std::bad_alloc();
    }
    void *data() const { return start_.get(); }
    std::size_t size() const { return bytes_; }

private:
    struct Free {
        void operator()(void *p) const { std::free(p); }
    };
    std::size_t bytes_;
    std::unique_ptr<void, Free> start_;
};

void check(qxr_status status)
{
    if (status != QXR_OK)
        throw std::runtime_error(qxr_status_text(status));
}

std::vector<char> read_all(const std::string &path)
{
    std::ifstream file(path, std::ios::binary);
    if (!file)
        throw std::runtime_error(path + " cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

class Network {
public:
    explicit Network(const std::vector<char> &contents) : file_(contents.size())
    {
        std::copy(contents.begin(), contents.end(), static_cast<char *>(file_.data()));
        check(qxr_open(file_.data(), contents.size(), &model_));
        check(qxr_select_isa(&model_, nullptr));
        weights_ = std::make_unique<Memory>(qxr_prepack_size(&model_));
        check(qxr_prepack(&model_, weights_->data(), weights_->size()));
        arena_ = std::make_unique<Memory>(qxr_arena_size(&model_, 1));
        for (std::uint32_t i = 0; i < qxr_input_count(&model_); i++)
            inputs.emplace_back(elements(qxr_input_info, i));
        for (std::uint32_t i = 0; i < qxr_output_count(&model_); i++)
            outputs.emplace_back(elements(qxr_output_info, i));
    }

    void run()
    {
        std::vector<const std::uint8_t *> in;
        std::vector<std::int32_t *> out;
        for (const auto &x : inputs)
            in.push_back(x.data());
        for (auto &y : outputs)
            out.push_back(y.data());
        check(qxr_run(&model_, arena_->data(), arena_->size(), in.data(), out.data(), nullptr));
    }

    const char *isa() const { return qxr_selected_isa(&model_); }

    std::vector<std::vector<std::uint8_t>> inputs;
    std::vector<std::vector<std::int32_t>> outputs;

private:
    std::size_t elements(qxr_status (*describe)(const qxr_model *, std::uint32_t, qxr_tensor_info *), std::uint32_t i) const
    {
        qxr_tensor_info info;
        check(describe(&model_, i, &info));
        return info.elements;
    }

    Memory file_;
    qxr_model model_{};
    std::unique_ptr<Memory> weights_, arena_;
};

bool read_sample(Network &network)
{
    for (auto &x : network.inputs)
        if (!std::cin.read(reinterpret_cast<char *>(x.data()), static_cast<std::streamsize>(x.size())))
            return false;
    return true;
}

} // namespace

int main(int count, char **arguments)
{
    try {
        if (count != 2)
            throw std::runtime_error("one argument: a .qpk file");
        Network network(read_all(arguments[1]));
        while (read_sample(network)) {
            network.run();
            for (const auto &y : network.outputs)
                for (const auto value : y)
                    std::cout << value << ' ';
            std::cout << '\n';
        }
        std::cerr << network.isa() << '\n';
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    return 0;
}
