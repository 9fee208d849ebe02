package judge

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"allotment/image"
	"allotment/image/secureboot"
	"allotment/image/secureboot/varstore"
	"allotment/image/uki"
	"allotment/image/uki/ukitest"
)

// testPE is a stub.
func testPE() []byte { return ukitest.PE(image.AMD64, make([]byte, 500)) }

// signedUKI is a signed unified kernel image with an initrd of the given size.
func signedUKI(t *testing.T, k *secureboot.Keys, size int) []byte {
	t.Helper()
	unsigned, err := uki.Assemble(testPE(), uki.Image{
		OSRelease: "IMAGE_VERSION=1.0\n", Cmdline: "quiet", Uname: "6.12",
		Initrd: random(size, 1), Linux: testPE(),
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := secureboot.SignPE(unsigned, k.DB)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// TestSignatures lets sbverify and osslsigncode check signed files of many sizes, and damaged ones.
func TestSignatures(t *testing.T) {
	keys, k := newKeys(t)
	db, kek := filepath.Join(keys, "db.crt"), filepath.Join(keys, "KEK.crt")
	for _, size := range []int{1, 511, 512, 70001} {
		path := write(t, filepath.Join(t.TempDir(), "uki.efi"), signedUKI(t, k, size))
		approve(t, "Signature verification OK", "sbverify", "--cert", db, path)
		refuse(t, "sbverify", "--cert", kek, path)
		approve(t, "Number of verified signatures: 1", "osslsigncode", "verify", "-CAfile", db, "-in", path)
		flip(t, path, 1536+100)
		refuse(t, "sbverify", "--cert", db, path)
		refuse(t, "osslsigncode", "verify", "-CAfile", db, "-in", path)
	}
}

// TestVariables lets virt-fw-vars read the stores that keys were enrolled in, and openssl check the variables' signatures.
func TestVariables(t *testing.T) {
	keys, k := newKeys(t)
	root := toolRoot(t).Dir()
	for _, empty := range []string{"usr/share/OVMF/OVMF_VARS_4M.fd", "usr/share/AAVMF/AAVMF_VARS.fd"} {
		out := filepath.Join(t.TempDir(), "vars.fd")
		if err := varstore.Enrol(filepath.Join(root, empty), out, k); err != nil {
			t.Fatal(err)
		}
		said, ok := ask(t, "virt-fw-vars", "--input", out, "--print", "--verbose")
		for _, v := range secureboot.Variables {
			if !ok || !strings.Contains(said, "name="+string(v)+" ") || !strings.Contains(said, "subject CN=Allotment Secure Boot "+string(v)) {
				t.Errorf("%s: virt-fw-vars does not find %s:\n%s", empty, v, said)
			}
		}
	}
	for v, signer := range map[secureboot.Variable]string{secureboot.PK: "PK", secureboot.KEK: "PK", secureboot.DB: "KEK"} {
		cms, content := splitVariable(t, v, k.Auth[v])
		dir := t.TempDir()
		args := []string{"cms", "-verify", "-binary", "-inform", "DER", "-in", write(t, filepath.Join(dir, "cms"), cms),
			"-content", write(t, filepath.Join(dir, "content"), content), "-CAfile", filepath.Join(keys, signer+".crt"),
			"-purpose", "any", "-out", filepath.Join(dir, "out")}
		approve(t, "success", "openssl", args...)
		flip(t, filepath.Join(dir, "content"), 40)
		refuse(t, "openssl", args...)
	}
}

// splitVariable takes an authenticated variable apart as UEFI 2.10, 8.2.2 says: the CMS, wrapped for openssl, and what
// it signs.
func splitVariable(t *testing.T, v secureboot.Variable, auth []byte) (cms, content []byte) {
	t.Helper()
	end := 16 + int(binary.LittleEndian.Uint32(auth[16:]))
	vendor := v.Vendor()
	content = append(v.UTF16(), vendor[:]...)
	content = binary.LittleEndian.AppendUint32(content, secureboot.VariableAttributes)
	content = append(content, auth[:16]...)
	content = append(content, auth[end:]...)
	sd := auth[40:end]
	// ContentInfo { signedData, [0] sd }, with two-byte lengths.
	oid := []byte{0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02}
	var b bytes.Buffer
	b.Write([]byte{0x30, 0x82})
	b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(oid)+4+len(sd))))
	b.Write(oid)
	b.Write([]byte{0xa0, 0x82})
	b.Write(binary.BigEndian.AppendUint16(nil, uint16(len(sd))))
	b.Write(sd)
	return b.Bytes(), content
}

func open(t testing.TB, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
