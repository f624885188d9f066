/* Calls the native library as a Java virtual machine does, where there is none: on emulated processors and under sanitizers.
 * Arguments: a .qpk file. Samples from standard input, outputs to standard output. What the library throws ends the program. */
#include <jni.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    jsize length;
    void *data;
} array;

static int thrown;

static jsize length_of(JNIEnv *env, jarray a) { (void)env; return ((array *)(void *)a)->length; }

static void get_bytes(JNIEnv *env, jbyteArray a, jsize start, jsize count, jbyte *to)
{
    (void)env;
    memcpy(to, (jbyte *)((array *)(void *)a)->data + start, (size_t)count);
}

static void set_ints(JNIEnv *env, jintArray a, jsize start, jsize count, const jint *from)
{
    (void)env;
    memcpy((jint *)((array *)(void *)a)->data + start, from, (size_t)count * sizeof *from);
}

static jclass find_class(JNIEnv *env, const char *name) { (void)env; return (jclass)(uintptr_t)(const void *)name; }

static jint throw_new(JNIEnv *env, jclass type, const char *message)
{
    (void)env;
    thrown = 1;
    fprintf(stderr, "%s: %s\n", (const char *)(void *)type, message);
    return 0;
}

static jboolean was_thrown(JNIEnv *env) { (void)env; return (jboolean)thrown; }

static jstring new_string(JNIEnv *env, const char *text) { (void)env; return (jstring)(uintptr_t)(const void *)text; }

static jintArray new_ints(JNIEnv *env, jsize length)
{
    array *a = malloc(sizeof *a + (size_t)length * sizeof(jint));
    (void)env;
    if (!a)
        exit(3);
    a->length = length;
    a->data = a + 1;
    return (jintArray)(void *)a;
}

static void *buffer_address(JNIEnv *env, jobject a) { (void)env; return ((array *)(void *)a)->data; }

static jlong buffer_capacity(JNIEnv *env, jobject a) { (void)env; return ((array *)(void *)a)->length; }

jlong Java_qexport_android_Network_open(JNIEnv *, jclass, jbyteArray);
void Java_qexport_android_Network_free(JNIEnv *, jclass, jlong);
jstring Java_qexport_android_Network_instructionSet(JNIEnv *, jclass, jlong);
jintArray Java_qexport_android_Network_shape(JNIEnv *, jclass, jlong, jint, jboolean);
jint Java_qexport_android_Network_outputSize(JNIEnv *, jclass, jlong);
void Java_qexport_android_Network_runArray(JNIEnv *, jclass, jlong, jbyteArray, jintArray);
void Java_qexport_android_Network_runBuffer(JNIEnv *, jclass, jlong, jobject, jintArray);

static const struct JNINativeInterface_ functions = {
    .GetArrayLength = length_of,
    .GetByteArrayRegion = get_bytes,
    .SetIntArrayRegion = set_ints,
    .FindClass = find_class,
    .ThrowNew = throw_new,
    .ExceptionCheck = was_thrown,
    .NewStringUTF = new_string,
    .NewIntArray = new_ints,
    .GetDirectBufferAddress = buffer_address,
    .GetDirectBufferCapacity = buffer_capacity,
};

static array read_file(const char *path)
{
    array a = {0, NULL};
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        exit(3);
    a.length = (jsize)ftell(file);
    a.data = malloc((size_t)a.length);
    rewind(file);
    if (!a.data || fread(a.data, 1, (size_t)a.length, file) != (size_t)a.length)
        exit(3);
    fclose(file);
    return a;
}

/* Elements of a shape, which is freed. */
static jsize size_of(jintArray shape)
{
    const array *a = (const array *)(const void *)shape;
    jsize size = 1, i;
    for (i = 0; i < a->length; i++)
        size *= ((const jint *)a->data)[i];
    free((void *)(uintptr_t)(const void *)a);
    return size;
}

int main(int count, char **arguments)
{
    JNIEnv env = &functions;
    array file = read_file(arguments[count - 1]), input, *output, *again;
    const jlong network = Java_qexport_android_Network_open(&env, NULL, (jbyteArray)(void *)&file);
    free(file.data);
    if (thrown)
        return network ? 2 : 1;
    input.length = size_of(Java_qexport_android_Network_shape(&env, NULL, network, 0, JNI_TRUE));
    input.data = malloc((size_t)input.length);
    output = (array *)(void *)new_ints(&env, Java_qexport_android_Network_outputSize(&env, NULL, network));
    again = (array *)(void *)new_ints(&env, output->length);
    while (input.data && fread(input.data, (size_t)input.length, 1, stdin) == 1) {
        Java_qexport_android_Network_runArray(&env, NULL, network, (jbyteArray)(void *)&input, (jintArray)(void *)output);
        Java_qexport_android_Network_runBuffer(&env, NULL, network, (jobject)(void *)&input, (jintArray)(void *)again);
        if (thrown || memcmp(output->data, again->data, (size_t)output->length * sizeof(jint)))
            return 2;
        fwrite(output->data, sizeof(jint), (size_t)output->length, stdout);
    }
    fprintf(stderr, "%s\n", (const char *)(void *)Java_qexport_android_Network_instructionSet(&env, NULL, network));
    Java_qexport_android_Network_free(&env, NULL, network);
    free(input.data);
    free(output);
    free(again);
    return 0;
}
