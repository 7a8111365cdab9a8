package pki

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
)

// WriteFiles writes a key (mode 0600) and then its certificate (0644), each
// whole or not at all and durable. A running process that finds the new key
// beside the old certificate keeps what it has until both are there.
func WriteFiles(certificateFile string, certPEM []byte, keyFile string, keyPEM []byte) error {
	if err := WriteFile(keyFile, keyPEM, 0o600); err != nil {
		return err
	}
	return WriteFile(certificateFile, certPEM, 0o644)
}

// WriteFile replaces a file, whole or not at all, and durably: written beside
// it, synced, renamed over it, and the directory synced.
func WriteFile(name string, content []byte, mode os.FileMode) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, err)
		}
	}()
	// CreateTemp gives mode 0600, so a key is never open to others.
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(file.Name())
		}
	}()
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := file.Chmod(mode); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return err
	}
	return syncDirectory(name)
}

// syncDirectory makes the name of a file as durable as its content.
func syncDirectory(name string) error {
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// KeyHashOfFile is the SHA-256 of the SubjectPublicKeyInfo of the first
// certificate in a PEM file: by it the directory binds a certificate from an
// outside authority to an agency or gateway.
func KeyHashOfFile(name string) ([32]byte, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return [32]byte{}, fmt.Errorf("key hash of a certificate: %w", err)
	}
	certificate, err := decodeCertificate(content)
	if err != nil {
		return [32]byte{}, fmt.Errorf("key hash of %s: %w", name, err)
	}
	return sha256.Sum256(certificate.RawSubjectPublicKeyInfo), nil
}
