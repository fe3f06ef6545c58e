//! The Kubernetes side: watches, webhook server, certificates, Services, status.
